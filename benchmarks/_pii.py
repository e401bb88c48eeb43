"""The evaluation suite of redaction: lines with marks, and what of the marks a text still shows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.redaction.policy import RedactionPolicy
from serving.redaction.spans import analyse
from serving.redaction.streams import StreamRedactor
from serving.schema import Word

SUITE = Path(__file__).with_name("pii_suite.txt")
UNSEEN = Path(__file__).with_name("pii_unseen.txt")
_MARK = re.compile(r"\{(\w+):([^}]*)\}")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Words ``start`` to ``end`` (exclusive) that must not be seen."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the suite."""

    words: tuple[str, ...]
    marks: tuple[Mark, ...]
    must: bool  # every mark must be caught; otherwise it is only counted

    def timed(self) -> list[Word]:
        """The words, each at the second that is its place: a mask tells by its times."""
        return [
            Word(word=word, start=float(at), end=at + 0.9, confidence=0.9)
            for at, word in enumerate(self.words)
        ]


def read_suite(path: Path = SUITE) -> list[Line]:
    """Every line that is no comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [read_line(line) for line in lines if line.strip() and not line.startswith("#")]


def read_line(text: str) -> Line:
    """``? my card is {card:four one ...} thanks``."""
    must = not text.startswith("?")
    text = text.removeprefix("?").strip()
    words: list[str] = []
    marks: list[Mark] = []
    at = 0
    for match in _MARK.finditer(text):
        words += text[at : match.start()].split()
        start = len(words)
        words += match[2].split()
        marks.append(Mark(start=start, end=len(words), kind=match[1]))
        at = match.end()
    return Line(words=(*words, *text[at:].split()), marks=tuple(marks), must=must)


def shown_places(words: Sequence[Word]) -> set[int]:
    """Places of words that stand in clear."""
    return {int(word.start) for word in words if not word.word.startswith("[")}


def leaks(line: Line, words: Sequence[Word]) -> list[Mark]:
    """Marks of which any word stands in clear."""
    clear = shown_places(words)
    return [mark for mark in line.marks if clear & set(range(mark.start, mark.end))]


def found_spans(line: Line, policy: RedactionPolicy) -> list[Mark]:
    """What redaction of the whole text hides."""
    spans = analyse(line.words, policy).spans
    return [Mark(start=span.start, end=span.end, kind=span.kind) for span in spans]


def stream(line: Line, cuts: Sequence[int], policy: RedactionPolicy) -> list[tuple[Word, ...]]:
    """Everything a live listener is shown: a partial per word, a final at each cut and at the end."""
    redactor = StreamRedactor(policy)
    words = line.timed()
    shown: list[tuple[Word, ...]] = []
    begin = 0
    for end in [*cuts, len(words)]:
        for upto in range(begin + 1, end + 1):
            shown.append(redactor.partial(words[begin:upto]).words)
        shown.append(redactor.final(words[begin:end], last=end == len(words)).words)
        begin = end
    return shown
