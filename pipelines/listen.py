"""Operation ``listen``: speech to text in the terminal, live, from a microphone or a file."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from data.units import SAMPLE_RATE_HZ
from governance.errors import AuricleError
from pipelines._microphone import microphone, recorder
from pipelines._service_key import service_key
from serving.live_client import Message, Talk, converse, paced

_DOUBTFUL, _FAIR = 0.15, 0.3  # confidence below which a word is marked, as on the page


class Screen(Protocol):
    """Where results go."""

    def show(self, message: Message) -> None:
        """One message of the service."""

    def close(self, talk: Talk | None) -> None:
        """The end; None where it went wrong."""


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle listen``; Ctrl-C ends the recording and still brings the last words."""
    screen: Screen = JsonLines() if args.json else _human()
    talk = None
    try:
        talk = asyncio.run(_listen(args, screen))
    finally:
        screen.close(talk)
    if talk.close_code not in (1000, 1012):
        raise AuricleError(
            f"the service closed the stream with code {talk.close_code}", item=args.url
        )
    return 0


def _human() -> Screen:
    return Terminal() if sys.stdout.isatty() else PlainLines()


async def _listen(args: argparse.Namespace, screen: Screen) -> Talk:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    blocks = _until(_file(Path(args.file)), stop) if args.file else microphone(recorder(), stop)
    try:
        return await converse(
            args.url,
            blocks,
            rate_hz=SAMPLE_RATE_HZ,
            api_key=service_key(args.url),
            tell=lambda message, talk: screen.show(message),
        )
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _until(blocks: AsyncIterator[bytes], stop: asyncio.Event) -> AsyncIterator[bytes]:
    async for block in blocks:
        if stop.is_set():
            return
        yield block


def _file(path: Path) -> AsyncIterator[bytes]:
    """A recording at the speed at which it was spoken."""
    from data.audio import load_mono_16k, to_pcm16

    samples_T = load_mono_16k(path, name=path.name)
    return paced(to_pcm16(samples_T[:, None]).tobytes(), rate_hz=SAMPLE_RATE_HZ)


class JsonLines:
    """Every message as it came, one a line."""

    def show(self, message: Message) -> None:
        """One line."""
        sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def close(self, talk: Talk | None) -> None:
        """Nothing more."""


class PlainLines:
    """Finals with their times, for pipes and logs."""

    def show(self, message: Message) -> None:
        """One line for each final that says something."""
        best = _best(message)
        if best and message["is_final"] and best["transcript"]:
            sys.stdout.write(f"{_clock(best['words'][0]['start'])}  {best['transcript']}\n")
            sys.stdout.flush()

    def close(self, talk: Talk | None) -> None:
        """Nothing more."""


class Terminal:
    """Finals scroll up, coloured by confidence; what is still open is dim below them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        self._console = Console(highlight=False)
        self._open: list[Any] = []  # finals of the utterance that goes on
        self._live = Live(
            Text("listening; Ctrl-C ends it", style="dim"), console=self._console, transient=True
        )
        self._live.start()

    def show(self, message: Message) -> None:
        """A partial is replaced; an utterance that is over becomes a line."""
        best = _best(message)
        if best is None:
            return
        if message["is_final"]:
            self._open += best["words"]
            best = {"transcript": ""}
        if message["speech_final"] and self._open:
            self._live.console.print(self._line(self._open))
            self._open = []
        line = self._line(self._open)
        line.append(f" {best['transcript']}", style="dim italic")
        self._live.update(line)

    def close(self, talk: Talk | None) -> None:
        """What was open becomes a line; then how long it was."""
        self._live.stop()
        if self._open:
            self._console.print(self._line(self._open))
        if talk is not None:
            self._console.print(f"{talk.audio_s:.1f} s heard", style="dim")

    def _line(self, words: list[Any]) -> Any:
        line = self._text(f"{_clock(words[0]['start'])}  " if words else "", style="dim")
        for at, word in enumerate(words):
            line.append(" " if at else "")
            line.append(word["word"], style=_style(word["confidence"]))
        return line


def _best(message: Message) -> dict[str, Any] | None:
    """The best alternative of a result; None for other messages."""
    if message["type"] != "Results":
        return None
    return dict(message["channel"]["alternatives"][0])


def _style(confidence: float) -> str:
    if confidence >= _FAIR:
        return "not dim"
    return "not dim yellow" if confidence >= _DOUBTFUL else "not dim red underline"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
