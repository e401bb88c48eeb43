"""Which utterance trains, selects or judges: given splits win, the rest follow their speaker.

A speaker's split is a hash of the salt, the corpus and the speaker, so adding data moves nobody
and no two splits share a voice. The price is that a small corpus may get an empty dev or test
split: ``empty_splits`` reports it; nothing is moved to fill the gap.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data.manifest import Utterance
from governance.errors import ConfigError

SPLITS = ("train", "dev", "test")
_FINE = 10_000  # hash buckets: hundredths of a percent


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One speaker of one corpus heard in more than one split."""

    corpus: str
    speaker: str
    splits: tuple[str, ...]


def assign(
    utterances: Iterable[Utterance],
    *,
    dev_percent: float,
    test_percent: float,
    salt: str,
    unknown_speakers: Literal["train", "by_utterance"] = "train",
) -> list[Utterance]:
    """Every utterance with its split filled in, in the order given.

    A split given by the corpus wins. A speaker with a given split keeps it for those of their
    utterances that have none (the least exposed one when the corpus itself puts them in several:
    ``leaks`` names them). An utterance whose speaker is unknown can only train, unless
    ``by_utterance`` accepts that the same voice may train and judge.
    """
    if min(dev_percent, test_percent) < 0 or dev_percent + test_percent > 100:
        raise ConfigError(
            f"dev {dev_percent} % and test {test_percent} % do not leave a share of 0 to 100 %",
            item="split",
            mend="choose percentages that add up to at most 100",
        )
    rows = list(utterances)
    known = _given_splits(rows)

    def dealt(row: Utterance) -> str:
        key = row.speaker or (_own_key(row) if unknown_speakers == "by_utterance" else "")
        return known.get((row.corpus, row.speaker)) or speaker_split(
            row.corpus, key, dev_percent=dev_percent, test_percent=test_percent, salt=salt
        )

    return [row if row.split else replace(row, split=dealt(row)) for row in rows]


def _own_key(row: Utterance) -> str:
    """What stands for the speaker of a recording that is dealt alone; empty if it may only train.

    Copies of one recording stay together, and what may not be evaluated is not.
    """
    return f"utterance {row.duplicate_of or row.utterance_id}" if "eval" in row.consent else ""


def held_out_strangers(utterances: Iterable[Utterance]) -> dict[str, int]:
    """Utterances of unknown speakers in dev and test: their voices may be heard in train as well."""
    counts = {split: 0 for split in SPLITS if split != "train"}
    for row in utterances:
        if not row.speaker and row.split in counts:
            counts[row.split] += 1
    return counts


def voices_note(utterances: Iterable[Utterance]) -> str:
    """Whose voices the held-out recordings are: what every figure on them must be read with."""
    rows = [row for row in utterances if row.split != "train"]
    unknown = sum(held_out_strangers(rows).values())
    if unknown:
        return (
            f"the speakers of {unknown} of {len(rows)} held-out recordings are unknown; they may "
            "also be heard in train, so figures on them flatter"
        )
    speakers = {(row.corpus, row.speaker) for row in rows}
    return f"{len(rows)} held-out recordings of {len(speakers)} speakers who were never trained on"


def speaker_split(
    corpus: str, speaker: str, *, dev_percent: float, test_percent: float, salt: str
) -> str:
    """The split of a speaker, from the hash alone; an unknown speaker trains."""
    if not speaker:
        return "train"
    key = "\x1f".join((salt, corpus, speaker)).encode()
    bucket = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % _FINE
    if bucket < round(test_percent * _FINE / 100):
        return "test"
    return "dev" if bucket < round((test_percent + dev_percent) * _FINE / 100) else "train"


def leaks(utterances: Iterable[Utterance]) -> list[Leak]:
    """Speakers heard in more than one split, by corpus and name."""
    heard: dict[tuple[str, str], set[str]] = {}
    for row in utterances:
        if row.speaker and row.split:
            heard.setdefault((row.corpus, row.speaker), set()).add(row.split)
    return [
        Leak(corpus=corpus, speaker=speaker, splits=tuple(sorted(splits, key=_rank)))
        for (corpus, speaker), splits in sorted(heard.items())
        if len(splits) > 1
    ]


def empty_splits(utterances: Iterable[Utterance]) -> tuple[str, ...]:
    """Splits that nobody fell into: reported, never filled by force."""
    present = {row.split for row in utterances}
    return tuple(split for split in SPLITS if split not in present)


def _rank(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def _given_splits(rows: Sequence[Utterance]) -> dict[tuple[str, str], str]:
    given: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.speaker and row.split:
            key = (row.corpus, row.speaker)
            given[key] = min(given.get(key, row.split), row.split, key=_rank)
    return given
