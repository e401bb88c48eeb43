"""Names of people: the seam for a recogniser, and the one that reads introductions."""

from collections.abc import Collection, Sequence
from typing import Protocol

from serving.redaction.lexicon import words_of

Place = tuple[int, int]
_CUES = (
    ("name", "is"), ("name's",), ("names", "are"), ("surname", "is"),
    ("mister",), ("mr",), ("mrs",), ("missus",), ("ms",), ("miss",), ("doctor",), ("dr",),
    ("professor",),
)  # fmt: skip
_TITLES = 10  # of the cues above, the last ones: one name follows, not a full one
_FULL, _AFTER_TITLE = 3, 2
_NO_NAMES = words_of(
    "a an the and or but if so not on in at to from for of with by as i i'm i'd i'll we you he she "
    "they it is was are were am be been my your his her our their this that these those there here "
    "what which who how when where why yes no please thanks thank just also calling speaking call "
    "spelled spelt spell wrong missing will can could would should do does did have has had "
    "because then than very too one two three four five six seven eight nine zero oh double "
    "first last time again"
)


class NameRecognizer(Protocol):
    """Finds names of people in words; any model can stand behind it."""

    def find(self, words: Sequence[str]) -> list[Place]:
        """Places of names, from the first to past the last word."""

    def open_from(self, words: Sequence[str]) -> int:
        """Where a name begins that later words may lengthen; the number of words if none."""


class IntroducedNames:
    """Names after "my name is", "mister" and the like. It knows no list of names: one that nobody
    introduces is not found."""

    def find(self, words: Sequence[str]) -> list[Place]:
        """Names after every introduction."""
        return [place for at in range(len(words)) if (place := self._named_at(words, at))]

    def open_from(self, words: Sequence[str]) -> int:
        """The name at the very end, while it may be longer."""
        for at in range(max(0, len(words) - _FULL), len(words)):
            place = self._named_at(words, at)
            if place and place[1] == len(words) and place[1] - place[0] < self._longest(words, at):
                return place[0]
        return len(words)

    def _named_at(self, words: Sequence[str], at: int) -> Place | None:
        longest = self._longest(words, at)
        end = at
        while end < len(words) and end - at < longest and _may_be_name(words[end]):
            end += 1
        return (at, end) if end > at else None

    def _longest(self, words: Sequence[str], at: int) -> int:
        """Words that a name at this place may have: none without an introduction before it."""
        said = tuple(word.casefold().strip(".,:;") for word in words[max(0, at - 2) : at])
        for number, cue in enumerate(_CUES):
            if said[-len(cue) :] == cue:
                return _AFTER_TITLE if number >= len(_CUES) - _TITLES else _FULL
        return 0


class ListedNames:
    """Names of a given list: of customers, of staff, or of a whole country."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(name.casefold() for name in names)

    def find(self, words: Sequence[str]) -> list[Place]:
        """Every word that is listed."""
        return [
            (at, at + 1)
            for at, word in enumerate(words)
            if word.casefold().strip(".,:;!?") in self._names
        ]

    def open_from(self, words: Sequence[str]) -> int:
        """A listed word is a name by itself."""
        return len(words)


def _may_be_name(word: str) -> bool:
    text = word.casefold().strip(".,:;!?")
    letters = text.replace("'", "").replace("-", "")
    return len(letters) > 1 and letters.isalpha() and text not in _NO_NAMES
