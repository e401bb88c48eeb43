"""The served model is changed again and again under load, in several worker processes.

    python -m benchmarks.swap [--swaps 50] [--workers 2] [--bundle FOLDER --other FOLDER]

Files and streams are sent without a break while `auricle swap`'s own code gives all workers one
version and then the other. No request may fail, every reply must name one version in all its places,
and whatever begins after a swap was acknowledged must be answered by the new one. One stream stays
open from the first swap to the last, and must stay on its model.
"""

import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from benchmarks._report import Page, holds, median_interval, parser, show, table
from benchmarks._swap_load import Load, Reply
from serving.swap.ask import ask
from serving.swap.live_folder import LiveFolder
from tests.support_browser import served
from tests.support_bundle import babble, hush, make_bundle
from tests.support_service import pcm16, wav

VERSIONS = ("one", "two")
_SHORT_SWAPS = 6


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """One acknowledged swap."""

    version: str
    asked_s: float
    acknowledged_s: float


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--swaps", type=int, default=50)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--bundle", type=Path, help="what is served first (a tiny random one)")
    options.add_argument("--other", type=Path, help="another version of it")
    given = options.parse_args(argv)
    swaps = _SHORT_SWAPS if given.short else given.swaps
    page = Page(name="swap", title="The model changed under load", arguments=argv)
    with tempfile.TemporaryDirectory(prefix="auricle-swap-") as name:
        folder = Path(name)
        bundles = (
            given.bundle or make_bundle(folder / "one", seed=11),
            given.other or make_bundle(folder / "two", seed=12),
        )
        kind = "trained ones" if given.bundle else "tiny random ones"
        page.notes.append(f"{given.workers} worker processes; bundles: {kind}")
        load, swapped, models = exchange(bundles, folder, swaps=swaps, workers=given.workers)
    judge(page, load, swapped, models, workers=given.workers)
    return page.write(given.out)


def exchange(
    bundles: tuple[Path, Path], folder: Path, *, swaps: int, workers: int
) -> tuple[Load, list[Swapped], float]:
    """Serve, load, swap; what was answered, when, and how many models were left in memory."""
    speech = np.concatenate([babble(1.5), hush(0.6), babble(0.8, seed=5)])
    live = LiveFolder(folder / "live")
    variables = {
        "AURICLE_PROCESSES": str(workers), "AURICLE_LIVE": str(live.folder),
        "AURICLE_MODEL_VERSION": VERSIONS[0], "AURICLE_CACHE": str(folder / "cache"),
    }  # fmt: skip
    swapped: list[Swapped] = []
    with served(bundles[0], folder, **variables) as client:
        while len(live.words()) < workers:
            time.sleep(0.05)
        with Load(url=client.url, sound=wav(speech), pcm=pcm16(speech).tobytes()) as load:
            load.await_replies(3)
            for turn in range(1, swaps + 1):
                version, asked_s = VERSIONS[turn % 2], time.monotonic()
                ask(live, bundles[turn % 2], version=version)
                swapped.append(
                    Swapped(version=version, asked_s=asked_s, acknowledged_s=time.monotonic())
                )
                load.await_replies(3)
        models = _settled(client.url, workers)
    return load, swapped, models


def _settled(url: str, workers: int) -> float:
    """Models in memory, once what was in flight has ended."""
    ends, found = time.monotonic() + 20.0, float("nan")
    while time.monotonic() < ends and found != workers:
        text = httpx.get(f"{url}/metrics").text
        found = sum(map(float, re.findall(r"^auricle_models_loaded (\S+)$", text, re.MULTILINE)))
        time.sleep(0.1)
    return found


def judge(
    page: Page, load: Load, swapped: Sequence[Swapped], models: float, *, workers: int
) -> None:
    """The promises, one by one."""
    replies, failed = load.replies, len(load.failures)
    mixed = sum(len(reply.versions) != 1 for reply in replies)
    strange = sum(not reply.versions <= set(VERSIONS) for reply in replies)
    late, sure = _after(replies, swapped)
    long_stream = load.long_stream
    kept = long_stream is not None and long_stream.versions == {VERSIONS[0]}
    sent = len(replies) + failed + (long_stream is not None)
    page.bars += [
        holds("failed requests", "0", f"{failed} of {sent:,}", failed == 0 and sent > 0),
        holds("replies that name not exactly one of the two versions", "0",
              str(mixed + strange), mixed + strange == 0),
        holds("begun after the acknowledgement, answered by the old version", "0",
              f"{late} of {sure:,}", late == 0 and sure > 0),
        holds("a stream open all the time stays on its model", "yes", "yes" if kept else "no", kept),
        holds("times that the service was not ready", "0", str(load.unready), not load.unready),
        holds("models in memory at the end", str(workers), f"{models:.0f}", models == workers),
    ]  # fmt: skip
    seconds = [one.acknowledged_s - one.asked_s for one in swapped]
    rows = [
        ("swaps acknowledged by every worker", len(swapped)),
        ("from the wish to the last worker's word", show(median_interval(seconds), "s")),
        ("slowest", show(max(seconds), "s")),
        ("files answered meanwhile", sum(reply.kind == "file" for reply in replies)),
        ("streams ended meanwhile", sum(reply.kind == "stream" for reply in replies)),
    ]
    page.sections.append(("What was done", table(("", ""), rows)))
    if load.failures:
        page.sections.append(("Failures", "\n".join(f"- {text}" for text in load.failures[:10])))


def _after(replies: Sequence[Reply], swapped: Sequence[Swapped]) -> tuple[int, int]:
    """Of the replies that lie between an acknowledgement and the next wish: not by the new one."""
    late = sure = 0
    for at, one in enumerate(swapped):
        until = swapped[at + 1].asked_s if at + 1 < len(swapped) else float("inf")
        inside = [r for r in replies if one.acknowledged_s <= r.began_s and r.ended_s <= until]
        sure += len(inside)
        late += sum(reply.versions != {one.version} for reply in inside)
    return late, sure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
