"""Parameters that belong to a stage itself; those of a folder's code live in that folder."""

import re
from dataclasses import dataclass
from typing import Literal

from governance.errors import ConfigError

_FRAME_MS = 40  # of the encoder; a stream advances by whole frames


@dataclass(frozen=True, kw_only=True)
class IngestParams:
    """Which corpora the pipeline reads."""

    corpora: tuple[str, ...]  # folders of data/shards; "builtin" is synthesised
    drop_duplicates: bool  # keep only the first of recordings that are the same sound

    def __post_init__(self) -> None:
        if not self.corpora:
            raise ConfigError(
                "no corpus is named",
                item="params.yaml: ingest.corpora",
                mend="for example [builtin]",
            )


@dataclass(frozen=True, kw_only=True)
class SplitParams:
    """Shares of speakers for corpora that bring no split of their own."""

    dev_percent: float
    test_percent: float
    salt: str
    unknown_speakers: Literal["train", "by_utterance"] = (
        "train"  # by_utterance: voices may train and judge
    )


@dataclass(frozen=True, kw_only=True)
class TokensParams:
    """The language model's order in words."""

    order: int


@dataclass(frozen=True, kw_only=True)
class FeaturizeParams:
    """Speeds of the training split and processes that compute."""

    speeds: tuple[float, ...]
    workers: int
    partition_mb: int


@dataclass(frozen=True, kw_only=True)
class PublishParams:
    """Names of the feature services; a new meaning gets a new version."""

    training_service: str
    serving_service: str


@dataclass(frozen=True, kw_only=True)
class ExportParams:
    """Stream chunk lengths to export, and how the model is called."""

    chunk_ms: tuple[int, ...]
    name: str
    domain: str

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

    audio_seconds: float
    repetitions: int

    def __post_init__(self) -> None:
        if self.audio_seconds <= 0 or self.repetitions < 1:
            raise ConfigError(
                "needs some audio_seconds and at least one of repetitions",
                item="params.yaml: benchmark",
                mend="for example 120.0 and 7",
            )


@dataclass(frozen=True, kw_only=True)
class GateParams:
    """Which policy judges."""

    policy: str
    alias: str


@dataclass(frozen=True, kw_only=True)
class PackageParams:
    """What is built."""

    gpu: bool  # also build the GPU bento (fp16) from the same code
