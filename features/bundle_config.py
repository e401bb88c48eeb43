"""``bundle.json`` as types: what a model is, apart from its weights.

Export and quantisation write it, serving reads it. JSON only; the reader is strict and names the
field that is wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from features.decode import DecoderConfig
from features.spec import FeatureSpec
from governance.errors import AuricleError, ConfigError

BUNDLE_SCHEMA = 1
USUAL_CHUNK_MS = 640
VARIANTS = ("fp32", "int8", "fp16")
TOKENS_FILE = "tokens.txt"
LANGUAGE_MODEL_FILE = "lm.arpa"
LEXICON_FILE = "lexicon.txt"

_T = TypeVar("_T")


class BundleError(ConfigError):
    """A model bundle that is incomplete or says something unusable."""

    def __init__(self, message: str, *, item: str | None = None, mend: str | None = None) -> None:
        super().__init__(message, item=item, mend=mend or "export the model again")


@dataclass(frozen=True, kw_only=True)
class EncoderDims:
    """The shapes of the encoder and of its streaming caches."""

    layers: int  # blocks; first axis of both caches
    d_model: int  # channels between blocks
    kernel: int  # cached frames of a block's convolutions, end to end, plus the present one
    left_frames: int  # encoder frames of attention history
    heads: int  # attention heads


@dataclass(frozen=True, kw_only=True)
class ChunkGraph:
    """One streaming graph: a chunk size has a file of its own."""

    file: str  # name inside the bundle
    chunk_frames: int  # encoder frames that one call looks at (see `features.streaming`)
    left_frames: int  # encoder frames of history that its attention cache holds


@dataclass(frozen=True, kw_only=True)
class NormPrior:
    """The normaliser's starting point where nothing is known of the speaker."""

    mean: tuple[float, ...]  # per mel bin
    std: tuple[float, ...]  # per mel bin
    prior_frames: int  # weight of the prior, in frames


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where the weights come from."""

    run_id: str  # MLflow run
    git_commit: str
    steps: int


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """Everything that a recogniser must know to run a model."""

    name: str
    variant: str  # one of VARIANTS
    feature_spec: FeatureSpec
    token_digest: str  # TokenTable.digest
    encoder: EncoderDims
    chunks: Mapping[int, ChunkGraph]  # chunk length in ms -> graph
    norm: NormPrior
    decoder: DecoderConfig  # measured best on dev; requests may override
    domain: str  # what the model was trained for, as shown to people
    normaliser: str  # data.text.NORMALISER_VERSION of the training text
    trained: Training
    language: str = "en"
    subsampling: int = 4  # feature frames per encoder frame
    frame_ms: int = 40  # one encoder frame
    offline: str = "offline.onnx"  # whole-file graph
    # Nats (`features.doubt`) above which nobody spoke; None: every word is believed.
    doubt_limit: float | None = None
    feature_fingerprint: str = field(init=False)  # of feature_spec

    def __post_init__(self) -> None:
        object.__setattr__(self, "feature_fingerprint", self.feature_spec.fingerprint())
        _check(self)

    @property
    def default_chunk_ms(self) -> int:
        """The chunk that streams use unless told otherwise: 640 ms, or the nearest there is."""
        return min(self.chunks, key=lambda ms: (abs(ms - USUAL_CHUNK_MS), ms))

    def required_files(self) -> frozenset[str]:
        """Names without which this configuration cannot run."""
        names = {self.offline, TOKENS_FILE, *(graph.file for graph in self.chunks.values())}
        if self.decoder.needs_language_model:
            names.add(LANGUAGE_MODEL_FILE)
        if self.decoder.needs_lexicon:
            names.add(LEXICON_FILE)
        return frozenset(names)

    def to_json(self) -> dict[str, Any]:
        """The document of ``bundle.json``, without the files' digests."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.doubt_limit is None:  # as written before there was one
            del document["doubt_limit"]
        document["chunks"] = {str(ms): graph for ms, graph in self.chunks.items()}
        return {"bundle_schema": BUNDLE_SCHEMA} | {
            name: _plain(value) for name, value in document.items()
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, item: str = "bundle.json") -> "BundleConfig":
        """Read what `to_json` gave; unknown, missing and mistyped fields are refused by name."""
        return _read(cls, document, item)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return list(value) if isinstance(value, tuple) else value


def _check(config: BundleConfig) -> None:
    bins = config.feature_spec.mel_bins
    if config.variant not in VARIANTS:
        raise BundleError(f"{config.variant!r} is not one of {VARIANTS}", item="variant")
    for name in ("mean", "std"):
        if (length := len(getattr(config.norm, name))) != bins:
            raise BundleError(f"has {length} numbers for {bins} mel bins", item=f"norm.{name}")
    if min(config.norm.std) <= 0:
        raise BundleError("standard deviations must be above 0", item="norm.std")
    if config.doubt_limit is not None and not config.doubt_limit > 0:
        raise BundleError("must be above 0", item="doubt_limit")
    if config.frame_ms != config.subsampling * config.feature_spec.hop_ms:
        raise BundleError("must be subsampling * feature_spec.hop_ms", item="frame_ms")
    if not config.chunks:
        raise BundleError("there is no streaming graph", item="chunks")
    for ms, graph in config.chunks.items():
        if ms != graph.chunk_frames * config.frame_ms:
            raise BundleError("must be chunk_frames * frame_ms", item=f"chunks.{ms}")


def _read(cls: type[_T], document: object, item: str) -> _T:
    if not isinstance(document, Mapping):
        raise BundleError("is not a JSON object", item=item)
    hints = get_type_hints(cls)
    given = {name: value for name, value in document.items() if name != "bundle_schema"}
    wanted = {entry.name: entry for entry in fields(cls)}  # type: ignore[arg-type]
    odd = sorted(given.keys() - wanted.keys()) + sorted(
        name for name, entry in wanted.items() if name not in given and entry.default is not None
    )
    if odd:
        word = "unknown" if odd[0] in given else "missing"
        raise BundleError(f"{word} field {odd[0]!r}", item=item)
    values = {
        name: _convert(hints[name], value, f"{item}: {name}")
        for name, value in given.items()
        if wanted[name].init
    }
    return _guarded(lambda: cls(**values), item)


def _guarded(make: Callable[[], _T], item: str) -> _T:
    try:
        return make()
    except BundleError as error:
        where = f"{item}: {error.item}" if error.item and item not in error.item else error.item
        raise BundleError(error.message, item=where or item, mend=error.mend) from None
    except AuricleError as error:
        where = f"{item}: {error.item}" if error.item else item
        raise BundleError(error.message, item=where, mend=error.mend) from None


def _convert(kind: Any, value: object, item: str) -> Any:
    if kind is FeatureSpec and isinstance(value, Mapping):
        return _guarded(lambda: FeatureSpec.from_json(value), item)
    if is_dataclass(kind):
        return _read(kind, value, item)  # type: ignore[arg-type]
    origin = get_origin(kind)
    if origin is UnionType:  # of one type and None
        return _convert(get_args(kind)[0], value, item)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(get_args(kind)[0], member, item) for member in value)
    if origin is Mapping and isinstance(value, Mapping):
        return {
            _milliseconds(key, item): _convert(get_args(kind)[1], member, f"{item}.{key}")
            for key, member in value.items()
        }
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise BundleError(f"{value!r} is not of type {getattr(kind, '__name__', kind)}", item=item)
    return value


def _milliseconds(key: object, item: str) -> int:
    if not (isinstance(key, str) and key.isascii() and key.isdigit()):
        raise BundleError(f"{key!r} is not a chunk length in ms", item=item)
    return int(key)
