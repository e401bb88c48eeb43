"""Parameters that belong to a stage itself; those of a folder's code live in that folder."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from governance.bounds import (
    NOT_EMPTY,
    Count,
    Name,
    Percent,
    PlayedSpeeds,
    Positive,
    Whole,
    between,
)
from governance.errors import ConfigError

_FRAME_MS = 40  # of the encoder; a stream advances by whole frames
_JUDGED = ("full", "stream")  # modes whose figures the gates name


@dataclass(frozen=True, kw_only=True)
class IngestParams:
    """Which corpora the pipeline reads."""

    corpora: Annotated[tuple[Name, ...], NOT_EMPTY]  # folders of data/shards; "builtin" is made
    drop_duplicates: bool  # keep only the first of recordings that are the same sound


@dataclass(frozen=True, kw_only=True)
class SplitParams:
    """Shares of speakers for corpora that bring no split of their own."""

    dev_percent: Percent
    test_percent: Percent
    salt: Name
    unknown_speakers: Literal["train", "by_utterance"] = (
        "train"  # by_utterance: voices may train and judge
    )

    def __post_init__(self) -> None:
        if self.dev_percent + self.test_percent > 100:
            raise ConfigError(
                f"dev {self.dev_percent} % and test {self.test_percent} % leave nothing to train on",
                item="params.yaml: split.dev_percent",
                mend="lower split.dev_percent or split.test_percent; together 100 at most",
            )


@dataclass(frozen=True, kw_only=True)
class TokensParams:
    """The language model's order in words."""

    order: Annotated[int, between(1, 9)]


@dataclass(frozen=True, kw_only=True)
class FeaturizeParams:
    """Speeds of the training split and processes that compute."""

    speeds: PlayedSpeeds
    workers: Count
    partition_mb: Count


@dataclass(frozen=True, kw_only=True)
class PublishParams:
    """Names of the feature services; a new meaning gets a new version."""

    training_service: Name
    serving_service: Name


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """How to evaluate."""

    modes: tuple[Literal["full", "masked", "stream"], ...]
    beam: Count  # prefixes kept
    lexicon: bool  # only words of the training text
    seed: Whole  # of the bootstrap
    players: Whole  # worst utterances shown with text and audio; 0 leaves content out of the page

    def __post_init__(self) -> None:
        missing = [mode for mode in _JUDGED if mode not in self.modes]
        if missing or len(set(self.modes)) < len(self.modes):
            raise ConfigError(
                f"needs {' and '.join(_JUDGED)}, which the gates judge, each mode once; "
                f"found {', '.join(self.modes) or 'nothing'}",
                item="params.yaml: evaluate.modes",
                mend="[full, stream], or [full, masked, stream]",
            )


@dataclass(frozen=True, kw_only=True)
class ExportParams:
    """Stream chunk lengths to export, and how the model is called."""

    chunk_ms: tuple[int, ...]
    name: str
    domain: Name

    def __post_init__(self) -> None:
        bad = [ms for ms in self.chunk_ms if ms < _FRAME_MS or ms % _FRAME_MS]
        if bad or not self.chunk_ms or len(set(self.chunk_ms)) < len(self.chunk_ms):
            found = ", ".join(map(str, self.chunk_ms)) or "nothing"
            raise ConfigError(
                f"chunk lengths are different multiples of {_FRAME_MS} ms, found {found}",
                item="params.yaml: export.chunk_ms",
                mend="for example [640], or [320, 640]",
            )
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise ConfigError(
                f"{self.name!r} is no model name: letters, digits and . _ - only",
                item="params.yaml: export.name",
                mend="for example auricle",
            )


@dataclass(frozen=True, kw_only=True)
class BenchmarkParams:
    """How long to measure."""

    audio_seconds: Positive
    repetitions: Count


@dataclass(frozen=True, kw_only=True)
class GateParams:
    """Which policy judges."""

    policy: Name
    alias: Name


@dataclass(frozen=True, kw_only=True)
class PackageParams:
    """What is built."""

    gpu: bool  # also build the GPU bento (fp16) from the same code
