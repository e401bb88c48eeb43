"""Redaction: recall and precision per kind, what live listeners are shown, and what it costs.

    python -m benchmarks.redaction [--out benchmarks/results]

Two sets of invented lines: `pii_suite.txt`, beside which the rules were written, and
`pii_unseen.txt`, written afterwards and never tuned on. Recall counts marks of which no word stands
in clear; precision counts hidden spans that touch a mark. Live: a partial after every word, and a
final at every single place and at every place at once. One thread, medians of several passes.
"""

import sys
import time
from collections.abc import Sequence

from benchmarks._pii import SUITE, UNSEEN, Line, found_spans, leaks, read_suite, stream
from benchmarks._report import Page, holds, parser, table
from serving.redaction.policy import parse_policy
from serving.redaction.spans import analyse
from serving.redaction.streams import StreamRedactor

PII = parse_policy(["pii"])
_PASSES = 7


def hides(line: Line) -> list[bool]:
    """For each mark, whether redaction of the whole text hides every word of it."""
    hidden = {place for span in found_spans(line, PII) for place in range(span.start, span.end)}
    return [set(range(mark.start, mark.end)) <= hidden for mark in line.marks]


def per_kind(lines: Sequence[Line]) -> list[tuple[object, ...]]:
    """Rows: kind, marks, recall, same kind, hidden spans, precision."""
    kinds = sorted({mark.kind for line in lines for mark in line.marks} | {"spelled"})
    rows: list[tuple[object, ...]] = []
    for kind in [*kinds, "all"]:
        marks = caught = named = spans = right = 0
        for line in lines:
            found = found_spans(line, PII)
            for mark, hidden in zip(line.marks, hides(line), strict=True):
                if kind in (mark.kind, "all"):
                    marks += 1
                    caught += hidden
                    named += any(s.kind == mark.kind and s.start < mark.end and mark.start < s.end
                                 for s in found)  # fmt: skip
            for span in found:
                if kind in (span.kind, "all"):
                    spans += 1
                    right += any(s.start < span.end and span.start < s.end for s in line.marks)
        rows.append(
            (kind, marks, rate(caught, marks), rate(named, marks), spans, rate(right, spans))
        )
    return rows


def rate(part: int, whole: int) -> str:
    """``97.5 % (39/40)``."""
    return f"{100 * part / whole:.1f} % ({part}/{whole})" if whole else "-"


def live_leaks(lines: Sequence[Line]) -> tuple[int, int]:
    """Marks of must-catch lines that any partial or final shows, and how many streams were run."""
    streams, shown = 0, 0
    for line in lines:
        if not line.must or not line.marks:
            continue
        places = range(1, len(line.words))
        for cuts in ([], list(places), *([place] for place in places)):
            streams += 1
            shown += any(leaks(line, words) for words in stream(line, cuts, PII))
    return shown, streams


def delays_ms(lines: Sequence[Line]) -> dict[str, float]:
    """Medians: one partial of an utterance, one final, and a file's thousand words."""
    partials: list[float] = []
    finals: list[float] = []
    for _ in range(_PASSES):
        for line in lines:
            redactor, words = StreamRedactor(PII), line.timed()
            began = time.perf_counter()
            redactor.partial(words)
            partials.append(time.perf_counter() - began)
            began = time.perf_counter()
            redactor.final(words)
            finals.append(time.perf_counter() - began)
    whole = [word for line in lines for word in line.words]
    files = []
    for _ in range(_PASSES):
        began = time.perf_counter()
        analyse(whole, PII)
        files.append((time.perf_counter() - began) * 1000 / len(whole))
    return {
        "a partial": middle(partials),
        "a final": middle(finals),
        "a partial, 99th percentile": sorted(partials)[int(0.99 * len(partials))] * 1000,
        "1,000 words of a file": middle(files),
    }


def middle(seconds: Sequence[float]) -> float:
    return sorted(seconds)[len(seconds) // 2] * 1000


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser(__doc__).parse_args(arguments)
    page = Page(name="redaction", title="Redaction of personal data",
                arguments=list(arguments or sys.argv[1:]))  # fmt: skip
    suite, unseen = read_suite(SUITE), read_suite(UNSEEN)
    missed = sum(not hidden for line in suite if line.must for hidden in hides(line))
    page.bars.append(
        holds("marks that must be caught, in files", "0 missed", f"{missed} missed", not missed)
    )
    shown, streams = live_leaks(suite)
    page.bars.append(
        holds("streams that show any of them", "0", f"{shown} of {streams:,} streams", not shown)
    )
    header = ("kind", "marks", "recall", "of the same kind", "hidden spans", "precision")
    for heading, lines in (("Suite", suite), ("Unseen lines", unseen)):
        page.sections.append((f"{heading} ({len(lines)} lines)", table(header, per_kind(lines))))
    rows = [(what, f"{value:.3f}") for what, value in delays_ms(suite).items()]
    page.sections.append(("Added delay", table(("of", "ms"), rows)))
    return page.write(args.out)


if __name__ == "__main__":
    raise SystemExit(main())
