"""Kill storms and rude clients, on loopback, with bounds.

    python -m benchmarks.soak [--kills 12] [--supervisor-kills 3] [--streams 5000] [--files 20000]

Training is killed (SIGKILL) at random moments and must end with the bits of an undisturbed run. The
service's supervisor is killed and no worker may go on answering. Then a crowd comes: live streams, a
fifth of which vanish without a word, among uploaded files. Every request must be answered, and after
a fifth of them the service's memory, handles and tasks must be flat.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks._crowd import CLIP_S, RATE_HZ, Crowd, Tally, come
from benchmarks._growth import slope, trend
from benchmarks._held import Held, held
from benchmarks._report import (
    ROOT,
    Bar,
    Page,
    below,
    holds,
    not_measured,
    parser,
    show,
    table,
)
from benchmarks._service import answers, service
from benchmarks._toy_training import STEPS, same_bits
from governance.records import Interval
from pipelines import _paths as paths
from pipelines.run import child_environment
from tests.support_bundle import babble, make_bundle
from tests.support_service import pcm16

_RUN_LIMIT_S = 300.0
_GONE_LIMIT_S = 10.0
_GROWTH_MB = 1.0  # per 1,000 streams, at most
_WARM_UP = 0.2  # of the streams: caches fill
_LOOKS, _SHOWN = 100, 5  # at the memory; every fifth is printed
_MORE = 2  # handles or tasks that are no leak: a connection that is just being closed
_SHORT = {"kills": 3, "supervisor_kills": 1, "streams": 250, "files": 1000}


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=12)
    options.add_argument("--supervisor-kills", type=int, default=3)
    options.add_argument("--streams", type=int, default=5000)
    options.add_argument("--files", type=int, default=20_000)
    options.add_argument("--minutes", type=float, default=60.0, help="then the crowd goes home")
    options.add_argument(
        "--bundle", type=Path, help="bundle to serve (this checkout's, or a tiny one)"
    )
    given = options.parse_args(argv)
    if given.short:
        options.set_defaults(**_SHORT)
        given = options.parse_args(argv)
    page = Page(name="soak", title="Kill storms and rude clients", arguments=argv)
    with tempfile.TemporaryDirectory(prefix="auricle-soak-") as name:
        folder = Path(name)
        if given.kills:
            _kill_training(page, folder, given.kills)
        bundle = _bundle(page, given.bundle, folder)
        if given.supervisor_kills:
            _kill_supervisor(page, folder, bundle, given.supervisor_kills)
        if given.streams:
            crowd = Crowd(streams=given.streams, files=given.files, limit_s=60 * given.minutes)
            _come(page, folder, bundle, crowd, judged=not given.short)
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


def _come(page: Page, folder: Path, bundle: Path, crowd: Crowd, *, judged: bool) -> None:
    """A crowd that is rude in part, and what it leaves behind in the service."""
    pcm = pcm16(babble(3.0)).tobytes()
    looks: list[tuple[float, float]] = []
    step = max(1, crowd.streams // _LOOKS)
    with service(folder / "home", bundle=bundle, log=folder / "log") as running:
        before = running.client.stream(pcm, rate_hz=RATE_HZ).text
        # The threads and connections that any work brings are there before the first look.
        asyncio.run(come(running.port, replace(crowd, streams=40, files=160, seed=1), _see))
        at_first = held(running)

        def look(tally: Tally) -> None:
            if tally.streams % step == 0:
                looks.append((tally.streams / 1000, running.memory_mb()))

        began_s = time.monotonic()
        tally = asyncio.run(come(running.port, crowd, look))
        minutes = (time.monotonic() - began_s) / 60
        left = held(running)
        after = running.client.stream(pcm, rate_hz=RATE_HZ).text
    late = [look for look in looks if look[0] > _WARM_UP * crowd.streams / 1000]
    growth = slope(late) if len(late) > 2 else None
    page.notes.append(f"{CLIP_S:g} s of sound each; seed {crowd.seed}; {minutes:.1f} minutes")
    page.bars += _bars(crowd, tally, growth if judged else None, at_first, left)
    same = before == after
    page.bars.append(
        holds("the next stream", "the same text", "the same" if same else "other", same)
    )
    if growth is not None:
        shown = f"{show(growth, 'MB')} per 1,000 streams after the warm-up: {trend(growth)}"
        page.sections.append(("Memory growth (95 % interval)", shown))
    page.sections.append(("Answers", table(("what", "times"), sorted(tally.outcomes.items()))))
    rows = [(f"{1000 * done:.0f}", f"{megabytes:.1f}") for done, megabytes in looks[::_SHOWN]]
    page.sections.append(
        ("Resident memory of all service processes", table(("streams", "MB"), rows))
    )


def _see(_: Tally) -> None:
    """Nobody looks at the warm-up."""


def _bars(
    crowd: Crowd, tally: Tally, growth: Interval | None, at_first: Held, left: Held
) -> list[Bar]:
    came = sum(tally.outcomes.values())
    answered = ("answered", "told to wait", "cut")
    odd = sum(n for what, n in tally.outcomes.items() if not what.endswith(answered))
    memory = "memory growth per 1,000 streams after the warm-up (upper bound)"
    return [
        holds(
            f"visits: {crowd.streams:,} streams, {crowd.abrupt_share:.0%} of them cut, and files",
            f"{crowd.streams + crowd.files:,}", f"{came:,}", came == crowd.streams + crowd.files,
        ),
        below("requests without an answer", 0, len(tally.unanswered), ""),
        below("answers other than the words or 429", 0, odd, ""),
        not_measured(memory, _GROWTH_MB, "MB") if growth is None
        else below(memory, _GROWTH_MB, growth.high, "MB"),
        below("open handles more than before", _MORE, left.handles - at_first.handles, ""),
        below("tasks of the event loop more than before", _MORE, left.tasks - at_first.tasks, ""),
        holds("auricle_streams_open afterwards", "0", f"{left.streams:g}", left.streams == 0),
    ]  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
