"""This machine's microphone as 16 kHz linear16, through whichever recorder is installed."""

import asyncio
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

from data.units import SAMPLE_RATE_HZ
from governance.errors import AuricleError

_BLOCK_BYTES = SAMPLE_RATE_HZ // 10 * 2  # a tenth of a second
_RATE = str(SAMPLE_RATE_HZ)
_RECORDERS = {
    "parec": ["--raw", "--format=s16le", f"--rate={_RATE}", "--channels=1", "--latency-msec=50"],
    "arecord": ["-q", "-t", "raw", "-f", "S16_LE", "-r", _RATE, "-c", "1"],
    "ffmpeg": [
        "-loglevel", "error", "-nostdin",
        *(["-f", "avfoundation", "-i", ":default"] if sys.platform == "darwin"
          else ["-f", "alsa", "-i", "default"]),
        "-ac", "1", "-ar", _RATE, "-f", "s16le", "-",
    ],
}  # fmt: skip


def recorder() -> list[str]:
    """The command of the first recorder that is there."""
    for name, arguments in _RECORDERS.items():
        if found := shutil.which(name):
            return [found, *arguments]
    raise AuricleError(
        f"no recorder is installed ({', '.join(_RECORDERS)})",
        item="microphone",
        mend="install one (Debian: alsa-utils), or send a recording with --file",
    )


async def microphone(command: list[str], stop: asyncio.Event) -> AsyncIterator[bytes]:
    """Blocks as they are heard, until ``stop``; a recorder that fails is named with its reason."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
    )  # a session of its own: Ctrl-C is ours to handle
    assert process.stdout is not None
    stopped = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            reading = asyncio.create_task(process.stdout.readexactly(_BLOCK_BYTES))
            await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                return
            try:
                yield reading.result()
            except asyncio.IncompleteReadError as last:
                if last.partial:
                    yield last.partial
                await _require_clean(process, command)
                return
    finally:
        stopped.cancel()
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _require_clean(process: Process, command: list[str]) -> None:
    assert process.stderr is not None
    said = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
    if await process.wait() != 0:
        raise AuricleError(
            f"the recorder failed: {said[-1] if said else 'it gave no reason'}",
            item=Path(command[0]).name,
            mend="check that a microphone is connected, or send a recording with --file",
        )
