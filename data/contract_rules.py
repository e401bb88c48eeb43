"""What an utterance must look like to be let in, in plain words and numbers.

The rules are judged by Great Expectations (``data.contracts``). The table they are judged on holds
no transcript, no speaker and no source, only figures drawn from them, so that nothing personal can
reach a report, whatever the report prints.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from data.manifest import Utterance
from data.sources.item import names_licence
from data.split import SPLITS, Leak, leaks
from data.text import ALPHABET
from governance.bounds import NOT_EMPTY, Name, NotNegative, Positive, Share, require_order

Effect = Literal["stop", "quarantine"]
Cell = str | int | float | bool | None

_MEASURED = (
    "duration_s", "level_dbfs", "clipping_ratio", "dc_offset", "snr_db", "speech_ratio",
)  # fmt: skip
_LETTERS = frozenset(ALPHABET)


@dataclass(frozen=True, kw_only=True)
class ContractConfig:
    """Limits of what is let in; a row beyond them is quarantined by its id."""

    min_duration_s: NotNegative = 0.1
    max_duration_s: Positive = 60.0
    min_level_dbfs: float = -60.0
    max_level_dbfs: float = -1.0
    max_clipping_ratio: Share = 0.05
    max_dc_offset: Share = 0.1  # absolute, of full scale
    min_snr_db: float = -5.0
    min_speech_ratio: Share = 0.02
    min_chars_per_s: NotNegative = 0.2
    max_chars_per_s: Positive = 40.0
    max_words_per_s: Positive = 12.0
    languages: Annotated[tuple[Name, ...], NOT_EMPTY] = ("en",)
    max_quarantined_share: Share = 0.1  # beyond it the whole batch is stopped
    speaker_overlap_in: tuple[str, ...] = ()
    """Corpora whose own splits share speakers, known and accepted (a corpus of one voice)."""

    def __post_init__(self) -> None:
        require_order(
            self,
            "validate",
            ("min_duration_s", "max_duration_s"),
            ("min_level_dbfs", "max_level_dbfs"),
            ("min_chars_per_s", "max_chars_per_s"),
        )


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One expectation: its column, what it allows, and what happens to what it does not allow."""

    name: str  # e.g. "duration": stable, names the rule in statistics
    column: str
    words: str  # "the duration is {value} s, not within 0.1 to 60 s"
    effect: Effect = "quarantine"
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()  # a set of values instead of a range
    unique: bool = False
    present: bool = False  # no row may lack a value
    kind: str = ""  # a column type instead of a range
    mend: str = ""  # what to do where most of a batch breaks the rule

    def reason(self, value: Cell) -> str:
        """Why a row is refused, with the value that it had."""
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        return self.words.format(value=shown)


_TYPES: Mapping[str, str] = {
    "utterance_id": "str", "split": "str", "language": "str",
    "licence_given": "str", "purpose_allowed": "str", "repeats_other_split": "str",
    "duration_s": "float64", "level_dbfs": "float64", "clipping_ratio": "float64",
    "dc_offset": "float64", "snr_db": "float64", "speech_ratio": "float64",
    "unknown_figures": "int64", "text_chars": "int64", "unspeakable_letters": "int64",
    "chars_per_s": "float64", "words_per_s": "float64", "speaker_splits": "int64",
}  # fmt: skip
COLUMNS = tuple(_TYPES)


def rules(config: ContractConfig) -> list[Rule]:
    """Every rule, the ones that stop a batch first."""
    c = config
    return [
        *(
            Rule(
                name=f"type of {column}", column=column, kind=kind, effect="stop",
                words=f"column {column} holds something that is no {kind}",
            )
            for column, kind in _TYPES.items()
        ),
        *(
            Rule(
                name=f"presence of {column}", column=column, present=True, effect="stop",
                words=f"column {column} lacks a value in some row",
            )
            for column in ("utterance_id", "split", "language")
        ),
        Rule(name="unique ids", column="utterance_id", unique=True, effect="stop",
             words="utterance id {value} is listed more than once"),
        Rule(name="speaker leakage", column="speaker_splits", high=1, effect="stop",
             words="the speaker is heard in {value} splits"),
        Rule(name="measurements", column="unknown_figures", high=0,
             words="{value} of its measurements are not finite numbers"),
        _between("duration", "duration_s", "the duration is {value} s",
                 c.min_duration_s, c.max_duration_s, " s"),
        _between("level", "level_dbfs", "the level is {value} dBFS",
                 c.min_level_dbfs, c.max_level_dbfs, " dBFS"),
        _between("clipping", "clipping_ratio", "a share of {value} of the samples is clipped",
                 None, c.max_clipping_ratio),
        _between("dc offset", "dc_offset", "the mean sample is {value}",
                 -c.max_dc_offset, c.max_dc_offset),
        _between("noise", "snr_db", "the signal-to-noise ratio is {value} dB",
                 c.min_snr_db, None, " dB"),
        _between("speech", "speech_ratio", "a share of {value} of the frames is speech",
                 c.min_speech_ratio, None),
        Rule(name="transcript", column="text_chars", low=1, words="the transcript is empty"),
        Rule(name="alphabet", column="unspeakable_letters", high=0,
             words="the normalised transcript has {value} characters outside the alphabet"),
        _between("slow transcript", "chars_per_s", "the transcript has {value} characters a second",
                 c.min_chars_per_s, None),
        _between("fast transcript", "chars_per_s", "the transcript has {value} characters a second",
                 None, c.max_chars_per_s),
        _between("fast words", "words_per_s", "the transcript has {value} words a second",
                 None, c.max_words_per_s),
        Rule(name="licence", column="licence_given", allowed=("yes",),
             words="no licence is named",
             mend="run `auricle corpus add` again with --licence, or write licence into its rows"),
        Rule(name="consent", column="purpose_allowed", allowed=("yes",),
             words="the consent does not cover {value}",
             mend="state it with --licence or --consent, or leave these recordings out"),
        Rule(name="split", column="split", allowed=(*SPLITS, ""),
             words="the split {value} is none of train, dev, test"),
        Rule(name="language", column="language", allowed=c.languages,
             words=f"the language {{value}} is none of {', '.join(c.languages)}"),
        Rule(name="repeat", column="repeats_other_split", allowed=("no",),
             words="it repeats {value}"),
    ]  # fmt: skip


def unaccepted_leaks(utterances: Sequence[Utterance], config: ContractConfig) -> list[Leak]:
    """Speakers in more than one split, but for corpora where that is accepted."""
    return [leak for leak in leaks(utterances) if leak.corpus not in config.speaker_overlap_in]


def table(utterances: Sequence[Utterance], config: ContractConfig) -> dict[str, list[Cell]]:
    """The columns that the rules look at, without personal content."""
    split_of = {row.utterance_id: row.split for row in utterances}
    found = unaccepted_leaks(utterances, config)
    heard = {(leak.corpus, leak.speaker): len(leak.splits) for leak in found}
    rows = [_figures(row, split_of, heard) for row in utterances]
    return {column: [row[column] for row in rows] for column in COLUMNS}


def _between(
    name: str, column: str, said: str, low: float | None, high: float | None, unit: str = ""
) -> Rule:
    if low is None:
        limits = f"above {high}{unit}"
    elif high is None:
        limits = f"below {low}{unit}"
    else:
        limits = f"not within {low} to {high}{unit}"
    return Rule(name=name, column=column, low=low, high=high, words=f"{said}, {limits}")


def _figures(
    row: Utterance, split_of: Mapping[str, str], heard: Mapping[tuple[str, str], int]
) -> dict[str, Cell]:
    text = row.normalised_text if isinstance(row.normalised_text, str) else ""
    usable = _finite(row.duration_s) and row.duration_s > 0
    per_s = 1.0 / row.duration_s if usable else 0.0
    figures = {column: getattr(row, column) for column in _MEASURED}
    return {
        "utterance_id": row.utterance_id,
        "split": row.split,
        "language": row.language,
        **figures,
        "unknown_figures": sum(not _finite(figure) for figure in figures.values()),
        "licence_given": "yes" if names_licence(row.licence) else "no",
        "purpose_allowed": _purpose(row),
        "repeats_other_split": _repeats(row, split_of),
        "text_chars": len(text.strip()),
        "unspeakable_letters": sum(letter not in _LETTERS for letter in text),
        "chars_per_s": len(text) * per_s,
        "words_per_s": len(text.split()) * per_s,
        "speaker_splits": heard.get((row.corpus, row.speaker), 1),
    }


def _finite(figure: object) -> bool:
    return isinstance(figure, int | float) and math.isfinite(figure)


def _purpose(row: Utterance) -> str:
    """``yes``, or the purposes that are missing.

    A row without a split may land anywhere, unless its speaker is unknown: then it can only train.
    """
    if row.split == "train" or (not row.split and not row.speaker):
        needed = ["train"]
    elif row.split:
        needed = ["eval"]
    else:
        needed = ["eval", "train"]
    missing = [purpose for purpose in needed if purpose not in row.consent]
    return " and ".join(missing) if missing else "yes"


def _repeats(row: Utterance, split_of: Mapping[str, str]) -> str:
    """``no``, or the recording of another split that this one repeats."""
    other = split_of.get(row.duplicate_of) if row.duplicate_of else None
    if other is None or other == row.split:
        return "no"
    return f"{row.duplicate_of} of split {other or 'unassigned'}"
