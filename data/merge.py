"""Several corpora as one: the same recording kept once, on the side where it does least harm.

A recording that trains in one corpus and judges in another would turn the test into a memory test.
Whatever the order of the corpora, the held-out copy is the one that stays: test before dev before
train before no split at all; only between equals the corpus that is named first.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data.duplicates import DuplicatePair, originals
from data.manifest import Utterance

_HELD_OUT = ("", "train", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """One recording that is there more than once."""

    id: str
    """The utterance that stays."""
    kind: Literal["exact", "near"]
    """``exact``: the same samples; ``near``: the same sound at another gain, codec or rate."""
    copies: tuple[str, ...]
    """Ids of the near copies; exact copies have the id of the original."""
    corpora: tuple[str, ...]
    """Where it was found, the one that stays first."""
    splits: tuple[str, ...]
    """The split that each of ``corpora`` gives it; empty where it gives none."""

    @property
    def conflicting(self) -> bool:
        """Whether the corpora put it into different splits."""
        return len(set(self.splits) - {""}) > 1

    def __str__(self) -> str:
        """Where it was found, and what was kept."""
        found = ", ".join(
            f"{corpus} ({split or 'no split'})"
            for corpus, split in zip(self.corpora, self.splits, strict=True)
        )
        what = "the same samples" if self.kind == "exact" else "the same sound"
        return f"{self.id}: {what} in {found}; kept: {self.corpora[0]}"


def merge(utterances: Iterable[Utterance]) -> tuple[list[Utterance], list[Repetition]]:
    """Rows with ids that are unique, ordered by corpus and id, and what was there repeatedly."""
    by_id: dict[str, list[Utterance]] = defaultdict(list)
    for row in utterances:
        by_id[row.utterance_id].append(row)
    kept: list[Utterance] = []
    found: list[Repetition] = []
    for name in sorted(by_id):
        copies = sorted(by_id[name], key=_exposure)  # stable: between equals the first named
        kept.append(copies[0])
        if len(copies) > 1:
            found.append(_repetition("exact", copies, ()))
    return sorted(kept, key=lambda row: (row.corpus, row.utterance_id)), found


def mark(
    rows: Sequence[Utterance], pairs: Iterable[DuplicatePair]
) -> tuple[list[Utterance], list[Repetition]]:
    """Rows whose ``duplicate_of`` names the copy to keep, over ``pairs`` and what the rows knew."""
    by_id = {row.utterance_id: row for row in rows}
    known = [
        DuplicatePair(first=row.utterance_id, second=row.duplicate_of, distance=0.0)
        for row in rows
        if row.duplicate_of in by_id
    ]

    def rank(name: str) -> tuple[int, bool]:
        return _exposure(by_id[name]), bool(by_id[name].duplicate_of)

    repeats = originals([*pairs, *known], rank=rank)
    groups: dict[str, list[str]] = defaultdict(list)
    for copy, original in repeats.items():
        groups[original].append(copy)
    found = [
        _repetition("near", [by_id[name] for name in (original, *copies)], tuple(copies))
        for original, copies in sorted(groups.items())
    ]
    # An original that is not among the rows (it was in no corpus that is read) is none any more.
    marked = [replace(row, duplicate_of=repeats.get(row.utterance_id, "")) for row in rows]
    return marked, found


def _exposure(row: Utterance) -> int:
    """The less, the more held out."""
    return -_HELD_OUT.index(row.split) if row.split in _HELD_OUT else 1


def _repetition(
    kind: Literal["exact", "near"], rows: Sequence[Utterance], copies: tuple[str, ...]
) -> Repetition:
    return Repetition(
        id=rows[0].utterance_id,
        kind=kind,
        copies=copies,
        corpora=tuple(row.corpus for row in rows),
        splits=tuple(row.split for row in rows),
    )
