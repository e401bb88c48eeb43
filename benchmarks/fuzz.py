"""Malformed bodies, frames and recordings against a running service: no input may hurt it.

    python -m benchmarks.fuzz [--cases 50000] [--seed 1] [--only NUMBER] [--short]

Every case is drawn from the seed and its number; a failure is printed with both, and ``--only``
sends that case again. Schemathesis asks before, whether what ``/openapi.json`` promises is kept.
Judged: no answer 5xx (but 503 with ``Retry-After``) and no close 1011, every
complete request answered, the same words for the same speech all along, memory, handles and tasks
flat, nothing that was sent in the log.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks._growth import slope, trend
from benchmarks._held import held
from benchmarks._malformed import CANARY
from benchmarks._promises import CHECKS, checked
from benchmarks._report import Page, below, holds, not_measured, parser, show, table
from benchmarks._service import Running, service
from benchmarks._storm import Storm, storm
from tests.support_bundle import babble, make_bundle
from tests.support_service import pcm16

_RATE_HZ = 16_000
_WARM_UP = 0.2  # of the cases
_LOOKS = 100
_GROWTH_MB = 1.0  # per 5,000 cases: there are as many as streams of the soak
_MORE = 2  # handles or tasks that are no leak: a connection that is just being closed
_SHORT_CASES = 1_000
_ASKED = 20  # times that the same speech is sent in between
_EXAMPLES, _SHORT_EXAMPLES = 100, 5  # drawn for each operation, besides its boundaries
_CHECK_LIMIT_S = 3_600.0
_TOLD_CHARACTERS = 6_000
_SHOWN = 20  # failures on the page


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--cases", type=int, default=50_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--only", type=int, metavar="NUMBER", help="one case again")
    given = options.parse_args(argv)
    cases = min(given.cases, _SHORT_CASES) if given.short else given.cases
    numbers = range(cases) if given.only is None else range(given.only, given.only + 1)
    page = Page(name="fuzz", title="Malformed input", arguments=argv)
    with tempfile.TemporaryDirectory(prefix="auricle-fuzz-") as name:
        folder = Path(name)
        bundle, log = make_bundle(folder / "tiny"), folder / "log"
        jobs = {"AURICLE_JOBS_DIR": str(folder / "jobs")}
        with service(folder / "home", bundle=bundle, log=log, variables=jobs) as running:
            if given.only is None:
                _promised(page, running, examples=_SHORT_EXAMPLES if given.short else _EXAMPLES)
            _fuzz(page, running, given.seed, numbers, judged=not given.short)
        told = log.read_bytes()
    page.bars += [
        below("times that something sent stands in the log", 0, told.count(CANARY.encode()), ""),
        below("unforeseen errors in the log", 0, told.count(b'"request_failed"'), ""),
        below("tracebacks in the log", 0, told.count(b"Traceback"), ""),
    ]
    return page.write(given.out)


def _promised(page: Page, running: Running, *, examples: int) -> None:
    verdict = checked(f"http://127.0.0.1:{running.port}", examples=examples, limit_s=_CHECK_LIMIT_S)
    kept = "every promise kept" if verdict.status == 0 else "promises broken"
    page.bars.append(
        holds(
            f"Schemathesis on /openapi.json, {verdict.cases:,} cases, {len(CHECKS)} checks",
            "every promise kept", kept, verdict.status == 0 and verdict.cases > 0,
        )
    )  # fmt: skip
    if verdict.status:
        page.sections.append(("Schemathesis", f"```\n{verdict.told[-_TOLD_CHARACTERS:]}\n```"))


def _fuzz(page: Page, running: Running, seed: int, numbers: range, *, judged: bool) -> None:
    pcm = pcm16(babble(2.0)).tobytes()

    def said() -> str:
        return running.client.stream(pcm, rate_hz=_RATE_HZ).text

    first = said()
    asyncio.run(storm(running.port, seed + 1, iter(range(90))))  # what any work brings is there
    at_first, began_s = held(running), time.monotonic()
    looks: list[tuple[float, float]] = []
    step = max(1, len(numbers) // _LOOKS)
    failures: list[str] = []
    found, other = Storm(), 0

    def look(current: Storm) -> None:
        done = found.done + current.done
        if done % step == 0:
            looks.append((done / 5_000, running.memory_mb()))

    size = -(-len(numbers) // _ASKED)
    for at in range(0, len(numbers), size):
        part = asyncio.run(storm(running.port, seed, iter(numbers[at : at + size]), look))
        found.done += part.done
        found.answers += part.answers
        failures += part.failures
        other += said() != first
    minutes = (time.monotonic() - began_s) / 60
    left = held(running)
    late = [one for one in looks if one[0] > _WARM_UP * len(numbers) / 5_000]
    growth = slope(late) if len(late) > 2 else None
    page.notes.append(f"seed {seed}; {minutes:.1f} minutes; the tiny random bundle")
    memory = "memory growth per 5,000 cases after the warm-up (upper bound)"
    page.bars += [
        holds(
            "malformed cases", f"{len(numbers):,}", f"{found.done:,}", found.done == len(numbers)
        ),
        below("5xx, closes with 1011, requests without an answer or end", 0, len(failures), ""),
        below(f"of {_ASKED} answers to the same speech in between, other words", 0, other, ""),
        below(memory, _GROWTH_MB, growth.high, "MB")
        if growth is not None and judged
        else not_measured(memory, _GROWTH_MB, "MB"),
        below("open handles more than before", _MORE, left.handles - at_first.handles, ""),
        below("tasks of the event loop more than before", _MORE, left.tasks - at_first.tasks, ""),
        below("auricle_streams_open afterwards", 0, left.streams, ""),
    ]
    if failures:
        print("\n".join(failures))
        page.sections.append(("Failures", "\n".join(f"- {one}" for one in failures[:_SHOWN])))
    if growth is not None:
        page.sections.append(
            ("Memory growth per 5,000 cases", f"{show(growth, 'MB')}: {trend(growth)}")
        )
    page.sections.append(
        ("Answers", table(("kind and status", "times"), sorted(found.answers.items())))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
