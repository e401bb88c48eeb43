"""Word and character errors: alignment, counts, corpus rates with intervals, slices.

Texts are compared as they are given: normalise both sides first (``score`` does).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data import bootstrap
from data.text import normalise
from governance.errors import AuricleError
from governance.records import Interval, SliceScore

OpKind = Literal["equal", "sub", "ins", "del"]
Unit = Literal["words", "chars"]


class ScoringError(AuricleError):
    """Sets of scored utterances that cannot be compared or summed."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """One step of an alignment; ``ref`` is empty for an insertion, ``hyp`` for a deletion."""

    kind: OpKind
    ref: str
    hyp: str


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Errors by kind against ``ref`` reference tokens."""

    sub: int
    ins: int
    del_: int
    ref: int

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions together."""
        return self.sub + self.ins + self.del_

    @property
    def rate(self) -> float:
        """Errors per reference token; against an empty reference, the number of insertions."""
        return self.errors / max(self.ref, 1)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            sub=self.sub + other.sub,
            ins=self.ins + other.ins,
            del_=self.del_ + other.del_,
            ref=self.ref + other.ref,
        )


@dataclass(frozen=True, kw_only=True)
class ScoredUtterance:
    """One reference and hypothesis, normalised, with their errors."""

    utterance_id: str
    speaker: str  # "" where unknown: the utterance is then a cluster of its own
    ref: str
    hyp: str
    words: Counts
    chars: Counts
    slices: dict[str, str]  # e.g. {"snr": "low", "corpus": "barista"}


def score(
    utterance_id: str, speaker: str, ref: str, hyp: str, *, slices: dict[str, str] | None = None
) -> ScoredUtterance:
    """Normalise both texts with the one normaliser of the house, then count."""
    ref, hyp = normalise(ref), normalise(hyp)
    return ScoredUtterance(
        utterance_id=utterance_id,
        speaker=speaker,
        ref=ref,
        hyp=hyp,
        words=count_words(ref, hyp),
        chars=count_chars(ref, hyp),
        slices=dict(slices or {}),
    )


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[Op]:
    """A minimal (Levenshtein) alignment; ties are broken as jiwer breaks them, so that the errors
    agree with it by kind."""
    head = _common_prefix(ref, hyp)
    tail = _common_prefix(ref[head:][::-1], hyp[head:][::-1])
    middle_ref, middle_hyp = ref[head : len(ref) - tail], hyp[head : len(hyp) - tail]
    kept = [Op(kind="equal", ref=token, hyp=token) for token in ref[:head]]
    kept += _align_middle(middle_ref, middle_hyp)
    return kept + [Op(kind="equal", ref=token, hyp=token) for token in ref[len(ref) - tail :]]


def count(ref: Sequence[str], hyp: Sequence[str]) -> Counts:
    """Errors by kind between two token sequences."""
    kinds = [op.kind for op in align(ref, hyp)]
    return Counts(
        sub=kinds.count("sub"), ins=kinds.count("ins"), del_=kinds.count("del"), ref=len(ref)
    )


def count_words(ref_text: str, hyp_text: str) -> Counts:
    """Word errors; words are what blanks part."""
    return count(ref_text.split(), hyp_text.split())


def count_chars(ref_text: str, hyp_text: str) -> Counts:
    """Character errors, blanks between words included."""
    return count(list(ref_text), list(hyp_text))


def total(items: Iterable[ScoredUtterance], *, unit: Unit = "words") -> Counts:
    """Errors of a whole set: its rate is the corpus WER (or CER)."""
    summed = Counts(sub=0, ins=0, del_=0, ref=0)
    for item in items:
        summed += _counts(item, unit)
    return summed


def rate_interval(
    items: Sequence[ScoredUtterance],
    *,
    unit: Unit = "words",
    cluster: Literal["speaker", "utterance"] = "speaker",
    resamples: int = 1000,
    seed: int,
) -> Interval:
    """Corpus error rate with its clustered bootstrap percentile interval (95 %)."""
    if not items:
        raise ScoringError("no utterances to score", mend="check the split and the filter")
    errors_C, refs_C = bootstrap.cluster_sums(
        _clusters(items, cluster),
        [_counts(item, unit).errors for item in items],
        [_counts(item, unit).ref for item in items],
    )
    return bootstrap.percentile_interval(
        total(items, unit=unit).rate, errors_C[None], refs_C[None], resamples=resamples, seed=seed
    )


def paired_difference(
    a: Sequence[ScoredUtterance],
    b: Sequence[ScoredUtterance],
    *,
    unit: Unit = "words",
    cluster: Literal["speaker", "utterance"] = "speaker",
    resamples: int = 1000,
    seed: int,
) -> Interval:
    """Error rate of ``b`` minus that of ``a`` on the same utterances, both under the same draws."""
    others = {item.utterance_id: item for item in b}
    ids = [item.utterance_id for item in a]
    if not ids or len(others) != len(b) or len(set(ids)) != len(ids) or set(ids) != set(others):
        differing = sorted(set(ids) ^ set(others))
        raise ScoringError(
            "the two systems were not scored on the same utterances, each once",
            item=differing[0] if differing else None,
            mend="score both on the same list",
        )
    paired = [others[utterance_id] for utterance_id in ids]
    errors_a, refs, errors_b = bootstrap.cluster_sums(
        _clusters(a, cluster),
        [_counts(item, unit).errors for item in a],
        [_counts(item, unit).ref for item in a],
        [_counts(item, unit).errors for item in paired],
    )
    point = total(paired, unit=unit).rate - total(a, unit=unit).rate
    return bootstrap.percentile_interval(
        point, np.stack([errors_a, errors_b]), np.stack([refs, refs]),
        resamples=resamples, seed=seed,
    )  # fmt: skip


def by_slice(
    items: Sequence[ScoredUtterance], *, unit: Unit = "words", resamples: int = 1000, seed: int
) -> list[SliceScore]:
    """One row per slice name and value, worst rate first within a name."""
    groups: dict[tuple[str, str], list[ScoredUtterance]] = {}
    for item in items:
        for pair in item.slices.items():
            groups.setdefault(pair, []).append(item)
    rows = [
        SliceScore(
            name=name,
            value=value,
            utterances=len(group),
            words=total(group).ref,
            wer=rate_interval(group, unit=unit, resamples=resamples, seed=seed),
        )
        for (name, value), group in groups.items()
    ]
    return sorted(rows, key=lambda row: (row.name, -row.wer.point, row.value))


def _counts(item: ScoredUtterance, unit: Unit) -> Counts:
    return item.words if unit == "words" else item.chars


def _clusters(items: Sequence[ScoredUtterance], cluster: str) -> list[str]:
    ids = [item.utterance_id for item in items]
    speakers = [item.speaker if cluster == "speaker" else "" for item in items]
    return bootstrap.cluster_names(speakers, ids)


def _common_prefix(left: Sequence[str], right: Sequence[str]) -> int:
    length = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        length += 1
    return length


def _distances(ref: Sequence[str], hyp: Sequence[str]) -> np.ndarray:
    """Edit distances of every prefix pair, a row at a time: the insertions of a row, which depend
    on each other, are a running minimum."""
    codes: dict[str, int] = {}
    ref_codes = [codes.setdefault(token, len(codes)) for token in ref]
    hyp_codes_H = np.array([codes.setdefault(token, len(codes)) for token in hyp], dtype=np.int32)
    steps = np.arange(len(hyp) + 1, dtype=np.int32)
    table = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.int32)
    table[0] = steps
    for row, code in enumerate(ref_codes, start=1):
        above = table[row - 1]
        best = above + 1
        np.minimum(best[1:], above[:-1] + (hyp_codes_H != code), out=best[1:])
        table[row] = np.minimum.accumulate(best - steps) + steps
    return table


def _align_middle(ref: Sequence[str], hyp: Sequence[str]) -> list[Op]:
    table = _distances(ref, hyp).tolist() if ref and hyp else []
    i, j = len(ref), len(hyp)
    backwards: list[Op] = []
    while i and j:
        if table[i][j] == table[i - 1][j] + 1:
            i -= 1
            backwards.append(Op(kind="del", ref=ref[i], hyp=""))
        elif j > 1 and table[i][j - 1] == table[i - 1][j - 1] - 1:
            j -= 1
            backwards.append(Op(kind="ins", ref="", hyp=hyp[j]))
        else:
            i, j = i - 1, j - 1
            kind: OpKind = "equal" if ref[i] == hyp[j] else "sub"
            backwards.append(Op(kind=kind, ref=ref[i], hyp=hyp[j]))
    backwards += [Op(kind="del", ref=token, hyp="") for token in reversed(ref[:i])]
    backwards += [Op(kind="ins", ref="", hyp=token) for token in reversed(hyp[:j])]
    return backwards[::-1]
