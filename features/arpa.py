"""Reading ARPA files: strictly, and with the line that is wrong in every complaint."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from governance.errors import ConfigError

_LN10 = math.log(10.0)
_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)\s*")
_SECTION = re.compile(r"\\(\d+)-grams:\s*")


class LanguageModelError(ConfigError):
    """A language model that cannot be read or trained."""


@dataclass
class NgramTable:
    """The content of an ARPA file, natural logarithms, words as ids."""

    order: int = 0
    ids: dict[str, int] = field(default_factory=dict)  # word -> id
    logp: dict[tuple[int, ...], float] = field(default_factory=dict)  # n-gram -> ln p
    backoff: dict[tuple[int, ...], float] = field(default_factory=dict)  # context -> ln weight


def read_arpa(path: Path) -> NgramTable:
    """Read an ARPA file of any order."""
    try:
        with path.open(encoding="utf-8") as stream:
            return _Reader(stream, name=str(path)).read()
    except FileNotFoundError:
        raise LanguageModelError("language model not found", item=str(path)) from None
    except UnicodeDecodeError as error:
        raise LanguageModelError(f"not UTF-8 at byte {error.start}", item=str(path)) from None


def parse_arpa(text: str, *, name: str = "lm.arpa") -> NgramTable:
    """Parse ARPA text; ``name`` is what errors call it."""
    return _Reader(iter(text.splitlines()), name=name).read()


class _Reader:
    def __init__(self, lines: Iterator[str], *, name: str) -> None:
        self._lines = lines
        self._name = name
        self._number = 0
        self._table = NgramTable()

    def read(self) -> NgramTable:
        line = self._next()
        while line != "\\data\\":  # the format allows a preamble
            line = self._next(expecting="\\data\\")
        counts, line = self._counts()
        self._table.order = len(counts)
        for order, count in enumerate(counts, start=1):
            match = _SECTION.fullmatch(line)
            if match is None or int(match.group(1)) != order:
                raise self._error(f"expected \\{order}-grams:, found {line!r}")
            line = self._section(order, count)
        if line != "\\end\\":
            raise self._error(f"expected \\end\\, found {line!r}")
        for word in ("<s>", "</s>"):
            if word not in self._table.ids:
                raise LanguageModelError(f"has no unigram {word}", item=self._name)
        return self._table

    def _counts(self) -> tuple[list[int], str]:
        counts: list[int] = []
        while (line := self._next(expecting="ngram 1=<count>")).startswith("ngram"):
            match = _COUNT.fullmatch(line)
            if match is None or int(match.group(1)) != len(counts) + 1:
                raise self._error(f"expected `ngram {len(counts) + 1}=<count>`, found {line!r}")
            counts.append(int(match.group(2)))
        if not counts:
            raise self._error(f"expected `ngram 1=<count>`, found {line!r}")
        return counts, line

    def _section(self, order: int, count: int) -> str:
        """Take one section's entries; gives the line that follows them."""
        found = 0
        while not (line := self._next(expecting="\\end\\")).startswith("\\"):
            self._entry(order, line)
            found += 1
        if found != count:
            raise self._error(f"{found} {order}-grams, but the header says {count}")
        return line

    def _entry(self, order: int, line: str) -> None:
        fields = line.split()
        if len(fields) not in (order + 1, order + 2):
            raise self._error(f"expected log10 p, {order} words and a back-off, found {line!r}")
        words = fields[1 : order + 1]
        ids = self._table.ids
        if order == 1:
            ids.setdefault(words[0], len(ids))
        try:
            ngram = tuple([ids[word] for word in words])
        except KeyError as error:
            raise self._error(f"word {error.args[0]!r} has no unigram") from None
        if ngram in self._table.logp:
            raise self._error(f"{' '.join(words)!r} is given twice")
        self._table.logp[ngram] = self._log(fields[0], highest=1e-4)
        if len(fields) == order + 2:
            self._table.backoff[ngram] = self._log(fields[-1], highest=math.inf)

    def _log(self, text: str, *, highest: float) -> float:
        try:
            value = float(text)
        except ValueError:
            raise self._error(f"{text!r} is not a number") from None
        if math.isnan(value) or value == math.inf or value > highest:
            raise self._error(f"{text!r} is not a log10 probability")
        return value * _LN10

    def _next(self, *, expecting: str = "\\data\\") -> str:
        for line in self._lines:
            self._number += 1
            if stripped := line.strip():
                return stripped
        raise self._error(f"the file ends, expected {expecting}")

    def _error(self, message: str) -> LanguageModelError:
        return LanguageModelError(
            message,
            item=f"{self._name} line {self._number}",
            mend="write the language model again (stage tokens)",
        )
