"""Kill storms and rude clients, on loopback, with bounds.

    python -m benchmarks.soak [--kills 12] [--supervisor-kills 3] [--disconnects 200] [--bundle DIR]

Training is killed (SIGKILL) at random moments and must end with the bits of an undisturbed run. The
service's supervisor is killed and no worker may go on answering. Clients vanish in the middle of
live streams and memory must become flat: caches fill during the first half, a leak goes on during
the last one (``--disconnects 2000`` tells them apart better than 200).
"""

import math
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil

from benchmarks._report import ROOT, Page, below, holds, parser, show, table
from benchmarks._service import Running, answers, service
from benchmarks._toy_training import STEPS, same_bits
from governance.records import Interval
from pipelines import _paths as paths
from pipelines.run import child_environment
from tests.support_bundle import babble, make_bundle

_RUN_LIMIT_S = 300.0
_GONE_LIMIT_S = 10.0
_EVERY = 10  # disconnects between two looks at the memory
_LEAST = 80  # disconnects: four looks in either half, or no growth can be told from noise
_GROWTH_KB = 20.0  # per disconnect over the last half, at most
_Z = 1.96  # of a 95 % interval
_RATE_HZ = 16_000


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=12)
    options.add_argument("--supervisor-kills", type=int, default=3)
    options.add_argument("--disconnects", type=int, default=200)
    options.add_argument(
        "--bundle", type=Path, help="bundle to serve (this checkout's, or a tiny one)"
    )
    given = options.parse_args(argv)
    if 0 < given.disconnects < _LEAST:
        options.error(f"--disconnects: 0, or {_LEAST} and more")
    page = Page(name="soak", title="Kill storms and rude clients", arguments=argv)
    with tempfile.TemporaryDirectory(prefix="auricle-soak-") as name:
        folder = Path(name)
        if given.kills:
            _kill_training(page, folder, given.kills)
        bundle = _bundle(page, given.bundle, folder)
        if given.supervisor_kills:
            _kill_supervisor(page, folder, bundle, given.supervisor_kills)
        if given.disconnects:
            _disconnect(page, folder, bundle, given.disconnects)
    return page.write(given.out)


def _bundle(page: Page, given: Path | None, folder: Path) -> Path:
    own = ROOT / paths.FP32
    bundle = given or (own if (own / "bundle.json").exists() else make_bundle(folder / "tiny"))
    kind = "a tiny random one" if bundle.parent == folder else "a trained one"
    page.notes.append(f"bundle served: {kind}")
    return bundle


def _kill_training(page: Page, folder: Path, kills: int) -> None:
    rng = random.Random(20_240)
    _train_until(folder / "whole", None, 0.0)
    # Ascending, so that every kill finds work left; the delay moves it anywhere inside a step.
    at = sorted(rng.sample(range(2, STEPS), kills))
    seen = [_train_until(folder / "cut", step, rng.uniform(0, 0.05)) for step in at]
    _train_until(folder / "cut", None, 0.0)
    same = same_bits(folder / "cut", folder / "whole")
    page.bars.append(
        holds(
            f"training killed {kills} times with SIGKILL, resumed each time",
            "the same bits as undisturbed",
            "the same bits" if same else "other bits",
            same,
        )
    )
    page.notes.append(f"training was killed at steps {', '.join(map(str, seen))} of {STEPS}")


def _train_until(folder: Path, kill_at: int | None, delay_s: float) -> int:
    """Run the toy training; SIGKILL it soon after ``kill_at``. Gives the last step it reported."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._toy_training", str(folder)],
        cwd=ROOT,
        env={**child_environment(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    last, end_s = 0, time.monotonic() + _RUN_LIMIT_S
    try:
        assert process.stdout is not None
        for line in process.stdout:
            last = int(line.split()[1])
            if time.monotonic() > end_s:
                raise TimeoutError(f"the training took longer than {_RUN_LIMIT_S:.0f} s")
            if kill_at is not None and last >= kill_at:
                time.sleep(delay_s)
                process.kill()
                break
        if process.wait() and kill_at is None:
            raise RuntimeError(f"the training ended with exit status {process.returncode}")
    finally:
        process.kill()
        process.wait()
    return last


def _kill_supervisor(page: Page, folder: Path, bundle: Path, times: int) -> None:
    """SIGKILL leaves the supervisor no chance to tell its workers."""
    gone_s = []
    for _ in range(times):
        with service(folder / "home", bundle=bundle, log=folder / "log") as running:
            workers = running.family()[1:]
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
            began_s = time.monotonic()
            while time.monotonic() - began_s < _GONE_LIMIT_S:
                if not answers(running.port) and not any(_lives(one) for one in workers):
                    break
                time.sleep(0.05)
            gone_s.append(time.monotonic() - began_s)
    page.bars.append(
        below("service: seconds until no worker answers after SIGKILL of its parent", _GONE_LIMIT_S,
              max(gone_s), "s")
    )  # fmt: skip
    page.notes.append(f"workers gone after {', '.join(f'{value:.2f}' for value in gone_s)} s")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _disconnect(page: Page, folder: Path, bundle: Path, times: int) -> None:
    rng = random.Random(7)
    pcm = (babble(3.0) * 32767).clip(-32768, 32767).astype("<i2").tobytes()
    memory: list[tuple[int, float]] = []
    with service(folder / "home", bundle=bundle, log=folder / "log") as running:
        before = running.client.stream(pcm, rate_hz=_RATE_HZ).text
        for done in range(1, times + 1):
            rng.choice(_RUDE)(running.port, pcm, rng.random())
            if done % _EVERY == 0:
                memory.append((done, running.memory_mb()))
        left = _settled_gauge(running)
        after = running.client.stream(pcm, rate_hz=_RATE_HZ).text
    halves = [[entry for entry in memory if (entry[0] > times / 2) == last] for last in (0, 1)]
    first, growth = map(slope_kb, halves)
    page.bars += [
        below(f"memory growth per abrupt disconnect, last half of {times} (upper bound)",
              _GROWTH_KB, growth.high, "kB"),
        holds("auricle_streams_open afterwards", "0", f"{left:g}", left == 0),
        holds("the next stream", "the same text as before", "the same" if before == after else "other",
              before == after),
    ]  # fmt: skip
    page.sections.append(
        (
            "Memory growth per disconnect",
            table(
                ("half", "growth (95 % interval)", ""),
                [
                    ("first", show(first, "kB"), trend(first)),
                    ("last", show(growth, "kB"), trend(growth)),
                ],
            ),
        )
    )
    rows = [(done, f"{megabytes:.1f}") for done, megabytes in memory]
    page.sections.append(
        ("Resident memory of all service processes", table(("disconnects", "MB"), rows))
    )


def _settled_gauge(running: Running) -> float:
    """Open streams, once the service has noticed that nobody is there."""
    end_s = time.monotonic() + 30
    while (left := running.gauge("auricle_streams_open")) and time.monotonic() < end_s:
        time.sleep(0.2)
    return left


def _connect(port: int) -> socket.socket:
    """A live stream by hand, so that the connection can be ended as no library would."""
    link = socket.create_connection(("127.0.0.1", port), timeout=10)
    link.sendall(
        f"GET /v1/listen?encoding=linear16&sample_rate={_RATE_HZ} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = link.recv(4096)
    if b" 101 " not in head:
        raise RuntimeError(f"no upgrade: {head[:200]!r}")
    return link


def _frame(payload: bytes) -> bytes:
    """A binary frame under a mask of zeros."""
    return struct.pack("!BBQI", 0x82, 0x80 | 127, len(payload), 0) + payload


def _reset(port: int, pcm: bytes, share: float) -> None:
    """Some audio, then a TCP reset."""
    link = _connect(port)
    link.sendall(_frame(pcm[: int(share * len(pcm)) // 2 * 2]))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()


def _vanish(port: int, pcm: bytes, share: float) -> None:
    """Some audio, then an end without a WebSocket close."""
    with _connect(port) as link:
        link.sendall(_frame(pcm[: int(share * len(pcm)) // 2 * 2]))


def _tear(port: int, pcm: bytes, share: float) -> None:
    """A frame that is never finished."""
    with _connect(port) as link:
        link.sendall(_frame(pcm)[: 16 + int(share * len(pcm))])


_RUDE: tuple[Callable[[int, bytes, float], None], ...] = (_reset, _vanish, _tear)


def slope_kb(memory: Sequence[tuple[int, float]]) -> Interval:
    """Median of all pairwise slopes (Theil and Sen), kB per disconnect, with its 95 % interval.

    The interval is Sen's (1968): ranks of the slopes, from the variance of Kendall's statistic.
    The slopes share their points, so drawing from them as if they were independent would say less
    doubt than there is.
    """
    count = len(memory)
    slopes = np.sort(
        [
            (b[1] - a[1]) * 1000 / (b[0] - a[0])
            for index, a in enumerate(memory)
            for b in memory[index + 1 :]
        ]
    )
    spread = _Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2) - 1)
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return Interval(
        low=float(slopes[low]), point=float(np.median(slopes)), high=float(slopes[high])
    )


def trend(growth: Interval) -> str:
    """What an interval of growth says."""
    if growth.low > 0:
        return "grows"
    return "shrinks" if growth.high < 0 else "cannot be told from flat"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
