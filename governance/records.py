"""The typed record that each stage leaves: gates, cards, lineage and MLflow read nothing else.

A record is one line of canonical JSON, so that equal content has equal bytes and any JSON tool can
read it.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from governance.canonical import bytes_digest, canonical_json, write_atomic
from governance.errors import AuricleError, ConfigError

RECORD_SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its confidence interval."""

    low: float
    """Lower bound."""
    point: float
    """The measured figure."""
    high: float
    """Upper bound."""

    def __post_init__(self) -> None:
        if not self.low <= self.point <= self.high:
            raise ValueError(f"not an interval: {self.low} <= {self.point} <= {self.high} is false")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Interval":
        """From ``{"low": ..., "point": ..., "high": ...}``."""
        return cls(low=value["low"], point=value["point"], high=value["high"])


@dataclass(frozen=True, kw_only=True)
class SliceScore:
    """The error rate of one slice of an evaluation."""

    name: str
    """Dimension, such as ``snr_band``."""
    value: str
    """Value on that dimension, such as ``10-20 dB``."""
    utterances: int
    """Utterances in the slice."""
    words: int
    """Reference words in the slice."""
    wer: Interval
    """Error rate of the slice."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SliceScore":
        """From the JSON that ``plain`` makes of a slice score."""
        return cls(
            name=value["name"],
            value=value["value"],
            utterances=value["utterances"],
            words=value["words"],
            wer=Interval.from_json(value["wer"]),
        )


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What one run of a stage read, was told, found and made."""

    stage: str
    """Name of the stage, as in ``dvc.yaml``."""
    schema_version: int = RECORD_SCHEMA_VERSION
    """Version of this record's shape."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Digest of each input by name."""
    params: dict[str, Any] = field(default_factory=dict)
    """Parameters that the stage used."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What the stage measured."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Digest of each output by name."""
    environment: dict[str, str] = field(default_factory=dict)
    """Machine, interpreter and commit (``governance.environment.describe``)."""
    started_at: str
    """Start of the run, ISO 8601 in UTC."""
    wall_s: float
    """Seconds that the run took."""

    def to_json(self) -> str:
        """Canonical JSON, without line end."""
        return canonical_json(plain(self, where=self.stage))

    @classmethod
    def from_json(cls, text: str, *, item: str = "record") -> "StageRecord":
        """Parse and check; ``item`` names the source in errors."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"not JSON ({error})", item=item, mend=_RERUN) from None
        _check(value, item)
        return cls(**value)


_RERUN = "run the stage again, for example `dvc repro --force STAGE`"
_KINDS: dict[str, tuple[type, ...]] = {
    "stage": (str,),
    "schema_version": (int,),
    "inputs": (dict,),
    "params": (dict,),
    "figures": (dict,),
    "outputs": (dict,),
    "environment": (dict,),
    "started_at": (str,),
    "wall_s": (int, float),
}


def write_record(path: Path, record: StageRecord) -> str:
    """Write one line of canonical JSON atomically; returns the file's digest."""
    content = f"{record.to_json()}\n".encode()
    write_atomic(path, content)
    return bytes_digest(content)


def read_record(path: Path, *, stage: str | None = None) -> StageRecord:
    """Read a record; with ``stage``, refuse the record of any other stage."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise AuricleError(
            "the record is not there", item=str(path), mend="run `auricle run` first"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text", item=str(path), mend=_RERUN) from None
    record = StageRecord.from_json(text, item=str(path))
    if stage is not None and record.stage != stage:
        raise ConfigError(
            f"this is the record of stage '{record.stage}', not of '{stage}'",
            item=str(path),
            mend=_RERUN,
        )
    return record


def record_digest(record: StageRecord) -> str:
    """Digest of the file that ``write_record`` makes of this record."""
    return bytes_digest(f"{record.to_json()}\n".encode())


def plain(value: Any, *, where: str = "") -> Any:
    """``value`` in plain JSON types: dataclasses, paths, tuples and NumPy values are converted.

    A number that JSON cannot hold (NaN, infinity) is refused by the name of its place.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise AuricleError(f"{value} cannot be recorded", item=where or "figure")
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: plain(getattr(value, f.name), where=_at(where, f.name)) for f in fields}
    if isinstance(value, Mapping):
        return {_key(key, where): plain(item, where=_at(where, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where=_at(where, index)) for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        return value.as_posix()
    if callable(tolist := getattr(value, "tolist", None)):  # NumPy scalars and arrays
        return plain(tolist(), where=where)
    raise TypeError(f"{where or 'value'}: {type(value).__name__} has no form in JSON")


def _at(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{where or 'value'}: the key {key!r} is not a string")
    return key


def _check(value: Any, item: str) -> None:
    if not isinstance(value, dict):
        raise ConfigError("a record is a JSON object", item=item, mend=_RERUN)
    if wrong := sorted(value.keys() ^ _KINDS.keys()):
        word = "unknown" if wrong[0] in value else "missing"
        raise ConfigError(f"{word} field '{wrong[0]}'", item=item, mend=_RERUN)
    for name, kinds in _KINDS.items():
        if not isinstance(value[name], kinds) or isinstance(value[name], bool):
            raise ConfigError(f"'{name}' is not a {kinds[-1].__name__}", item=item, mend=_RERUN)
    if value["schema_version"] != RECORD_SCHEMA_VERSION:
        raise ConfigError(
            f"schema version {value['schema_version']}, this code reads {RECORD_SCHEMA_VERSION}",
            item=item,
            mend=_RERUN,
        )
    for name in ("inputs", "outputs", "environment"):
        if not all(isinstance(entry, str) for entry in value[name].values()):
            raise ConfigError(f"'{name}' maps names to text", item=item, mend=_RERUN)
