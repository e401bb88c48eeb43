"""Runs of digits and letters: where one begins and ends, what it reads as, whether it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from serving.redaction import lexicon
from serving.redaction.tokens import CONTENT, NUMERIC, Shape, Token

_WEAK = frozenset({"and", "of", "the"})
_GAP_TOKENS = 3  # links and fillers in a row that do not end a run
_STRAY_WORDS = 2  # misheard words inside a long number
_BRIDGE_TOKENS = 5
_BRIDGE_DIGITS = 3  # on either side of a bridge


@dataclass(kw_only=True)
class Run:
    """Tokens ``start`` to ``end`` (exclusive) that belong together."""

    start: int
    end: int
    letters: str = ""
    chars: str = ""  # letters and digits in their order
    pieces: list[str] = field(default_factory=list)  # of digits, as they are read
    in_a_row: int = 0  # digits in the longest stretch that nothing interrupts
    cardinal: bool = True  # one number such as "two hundred and five", or a part of a day
    month: bool = False

    @property
    def digits(self) -> str:
        """All digits of the run."""
        return "".join(self.pieces)


def find_runs(tokens: Sequence[Token]) -> list[Run]:
    """Every run, in order; digits on both sides of a misheard word are one run."""
    found: list[Run] = []
    at = 0
    while at < len(tokens):
        if tokens[at].shape not in CONTENT:
            at += 1
            continue
        end = _end_of(tokens, at)
        run = read_run(tokens, at, end)
        before = found[-1] if found else None
        if before is not None and _bridged(tokens, before, run):
            found[-1] = read_run(tokens, before.start, end)
        else:
            found.append(run)
        at = end
    return found


def open_from(tokens: Sequence[Token], runs: Sequence[Run]) -> int:
    """Where the run begins that later words may still continue; the number of tokens if none."""
    if not runs or not _may_go_on(tokens, runs[-1]):
        return len(tokens)
    last = runs[-1]
    if len(runs) > 1:
        before = runs[-2]
        if _is_long(before) and _strays(tokens[before.end : last.start]):
            return before.start
    return last.start


def _may_go_on(tokens: Sequence[Token], run: Run) -> bool:
    tail = tokens[run.end :]
    if _is_long(run) and _strays(tail):
        return True
    previous = tokens[run.end - 1]
    numeric = previous.shape in NUMERIC
    return len(tail) <= _GAP_TOKENS and all(
        token.shape in (Shape.LINK, Shape.FILLER) or (token.shape is Shape.SOFT and numeric)
        for token in tail
    )


def _strays(tokens: Sequence[Token]) -> bool:
    """Whether a number may go on after these tokens."""
    if len(tokens) > _BRIDGE_TOKENS or any(_announces(token) for token in tokens):
        return False
    links = (Shape.LINK, Shape.FILLER, Shape.SOFT)
    return sum(token.shape not in links for token in tokens) <= _STRAY_WORDS


def _announces(token: Token) -> bool:
    """Whether another run begins after this token."""
    return token.shape is Shape.MASK or token.text in lexicon.KIND_OF_CUE


def _bridged(tokens: Sequence[Token], before: Run, run: Run) -> bool:
    return _is_long(before) and _is_long(run) and _strays(tokens[before.end : run.start])


def _is_long(run: Run) -> bool:
    """Whether a misheard word after it may be a misheard digit."""
    return len(run.digits) >= _BRIDGE_DIGITS and not run.cardinal


def _end_of(tokens: Sequence[Token], at: int) -> int:
    end, cursor = at + 1, at + 1
    while cursor < len(tokens) and cursor - end <= _GAP_TOKENS:
        token = tokens[cursor]
        if token.shape in CONTENT:
            end = cursor + 1
        elif not _links(tokens, end - 1, cursor):
            break
        cursor += 1
    return end


def _links(tokens: Sequence[Token], last: int, at: int) -> bool:
    """Whether the token at ``at`` holds a run together that had its last content at ``last``."""
    token, previous = tokens[at], tokens[last]
    following = tokens[at + 1].shape if at + 1 < len(tokens) else Shape.WORD
    if token.shape is Shape.SOFT:
        return previous.shape is Shape.DIGIT and following in (Shape.DIGIT, Shape.TIMES)
    if token.text in _WEAK and token.shape is Shape.LINK:
        kept = previous.shape in (Shape.SCALE, Shape.ORDINAL, Shape.MONTH)
        return kept or following in (Shape.MONTH, Shape.ORDINAL)
    return token.shape in (Shape.LINK, Shape.FILLER)


def read_run(tokens: Sequence[Token], start: int, end: int) -> Run:
    """Read the digits and letters between two places."""
    run = Run(start=start, end=end)
    reader = _DigitReader()
    for token in tokens[start:end]:
        if token.shape is Shape.LETTER:
            run.letters += token.chars
            run.chars += token.chars
            reader.interrupt()
        elif token.shape is Shape.ALNUM:
            run.letters += "".join(c for c in token.chars if c.isalpha())
            run.chars += token.chars
            reader.written("".join(c for c in token.chars if c.isdigit()))
        elif token.shape is Shape.MONTH:
            run.month = True
            reader.interrupt()
        else:
            reader.read(token)
            run.chars += token.chars
    run.pieces = reader.pieces
    run.in_a_row = reader.in_a_row()
    run.cardinal = reader.one_number()
    return run


class _DigitReader:
    """Number words to digits: "twenty three" is 23, "double four" 44, "forty one hundred" 4100."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._stretches: list[int] = [0]  # pieces up to each interruption
        self._times = 1
        self._fill = 0  # places of the last piece that smaller numbers still take
        self._tens = False
        self._plain = True  # words of one number only: nothing written, repeated or decimal

    def read(self, token: Token) -> None:
        """Take the next token."""
        if token.shape is Shape.TIMES:
            self._times = lexicon.TIMES[token.text]
            self._plain = False
        elif token.shape is Shape.SCALE and self.pieces:
            places = lexicon.SCALES[token.text]
            self.pieces[-1] += "0" * places
            self._fill, self._tens = places, False
        elif token.shape in (Shape.DIGIT, Shape.ORDINAL, Shape.DATE):
            if token.written:
                self.written(token.chars)
            else:
                self._spoken(token.chars, token.text)
        elif token.shape not in (Shape.LINK, Shape.FILLER) or (
            token.text in _WEAK and not self._fill
        ):
            self.interrupt()

    def written(self, digits: str) -> None:
        """Take figures."""
        self._add(digits)
        self._plain = self._plain and len(digits) < 3

    def interrupt(self) -> None:
        """Something else stands between digits."""
        self._fill, self._tens = 0, False
        if self._stretches[-1] != len(self.pieces):
            self._stretches.append(len(self.pieces))

    def in_a_row(self) -> int:
        """Digits of the longest stretch."""
        ends = [*self._stretches, len(self.pieces)]
        return max(
            (sum(len(piece) for piece in self.pieces[a:b]) for a, b in pairwise(ends)),
            default=0,
        )

    def one_number(self) -> bool:
        """A single cardinal, a year or a time of day: what counts or tells the time."""
        if len(self.pieces) < 2:
            return self._plain
        if len(self.pieces) > 2:
            return False
        first, second = self.pieces
        year = first in ("17", "18", "19", "20") and len(second) == 2
        clock = len(first) <= 2 and 1 <= int(first or 0) <= 12 and len(second) == 2
        return self._plain and (year or (clock and 10 <= int(second) < 60))

    def _spoken(self, digits: str, text: str) -> None:
        unit = len(digits) == 1 and digits != "0"
        if self._times > 1:
            self._add(digits * self._times)
            self._times = 1
        elif self._tens and unit:
            self.pieces[-1] = self.pieces[-1][:-1] + digits
            self._tens = False
        elif self._fill >= len(digits) and digits != "0":
            self.pieces[-1] = self.pieces[-1][: -len(digits)] + digits
            self._fill, self._tens = 0, text in lexicon.TENS
        else:
            self._add(digits)
            self._tens = text in lexicon.TENS

    def _add(self, digits: str) -> None:
        self.pieces.append(digits)
        self._fill, self._tens = 0, False
