"""The manifest: one row per utterance, in Parquet with a schema version."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from governance.canonical import write_atomic
from governance.errors import ConfigError

MANIFEST_SCHEMA_VERSION = 1
_VERSION_KEY = b"auricle.manifest.schema_version"
_ROW_GROUP = 65_536


class ManifestError(ConfigError):
    """A manifest that is missing, foreign, or of another schema version."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One recording with its transcript: where it lies, what was said, by whom, on what terms."""

    utterance_id: str
    """Keyed hash of the samples at native rate; see ``data.ids``."""
    corpus: str
    """Name of the corpus that it came with."""
    shard: str
    """Shard file, as a relative POSIX path under the shards root."""
    offset: int
    """First byte of the member (FLAC, or WAV beyond 8 channels) inside the shard."""
    length: int
    """Bytes of the member."""
    text: str
    """Transcript as given."""
    normalised_text: str
    """Transcript in the alphabet of models and scores."""
    normaliser: str
    """Version of the normaliser that wrote ``normalised_text``."""
    speaker: str
    """Pseudonym; empty where nobody knows the speaker."""
    language: str
    """Language tag such as ``en``."""
    split: str
    """``train``, ``dev`` or ``test`` as given by the corpus; empty where it gave none."""
    licence: str
    """Licence of this recording."""
    consent: tuple[str, ...]
    """Purposes that the speaker or the licence allows, sorted, such as ``("eval", "train")``."""
    source: str
    """Where the corpus says that the recording came from."""
    source_digest: str
    """``sha256:`` of the bytes of the file as delivered."""
    native_format: str
    """Container and codec as delivered, such as ``wav/pcm_16``."""
    native_rate_hz: int
    """Samples per second as delivered and as stored."""
    native_channels: int
    """Channels as delivered and as stored."""
    duration_s: float
    """Seconds, from the decoded samples and never from a header."""
    level_dbfs: float
    """Root-mean-square level."""
    peak_dbfs: float
    """Level of the largest sample."""
    clipping_ratio: float
    """Share of samples at full scale."""
    dc_offset: float
    """Mean sample."""
    snr_db: float
    """Signal-to-noise ratio estimated from frame energies."""
    bandwidth_hz: float
    """Highest frequency that carries signal."""
    speech_ratio: float
    """Share of frames that stand out from the background."""
    duplicate_of: str = ""
    """Id of the utterance that this one nearly repeats; empty if none."""


def _column_type(name: str, annotation: object) -> Any:
    if name == "consent":
        return pa.list_(pa.string())
    return {str: pa.string(), int: pa.int64(), float: pa.float64()}[annotation]  # type: ignore[index]


_NAMES = tuple(field.name for field in fields(Utterance))
_SCHEMA = pa.schema(
    [
        pa.field(field.name, _column_type(field.name, field.type), nullable=False)
        for field in fields(Utterance)
    ],
    metadata={_VERSION_KEY: str(MANIFEST_SCHEMA_VERSION).encode()},
)


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write atomically; equal rows in equal order give equal bytes (at one pyarrow version)."""
    rows = list(utterances)
    _require_unique(path, rows)
    columns = [
        pa.array([getattr(row, name) for row in rows], type=_SCHEMA.field(name).type)
        for name in _NAMES
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(columns, schema=_SCHEMA),
        sink,
        compression="zstd",
        row_group_size=_ROW_GROUP,
    )
    write_atomic(path, sink.getvalue().to_pybytes())


def read_manifest(path: Path) -> list[Utterance]:
    """Every row, in the order of the file."""
    table = _read_table(path)
    _require_version(path, table.schema.metadata or {})
    missing = [name for name in _NAMES if name not in table.schema.names]
    if missing:
        raise ManifestError(
            f"columns missing: {', '.join(missing)}", item=str(path), mend="ingest the corpus again"
        )
    try:
        columns = table.select(_NAMES).cast(_SCHEMA.remove_metadata()).to_pydict()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise ManifestError(
            f"a column has an unusable type or value ({error})",
            item=str(path),
            mend="ingest the corpus again",
        ) from error
    columns["consent"] = [tuple(purposes) for purposes in columns["consent"]]
    return [
        Utterance(**dict(zip(_NAMES, row, strict=True)))
        for row in zip(*(columns[name] for name in _NAMES), strict=True)
    ]


def _read_table(path: Path) -> Any:
    if not path.is_file():
        raise ManifestError(
            "there is no manifest here", item=str(path), mend="ingest the corpus first"
        )
    try:
        # ParquetFile and not read_table: a lone file needs no dataset discovery around it.
        with pq.ParquetFile(path) as parquet:
            return parquet.read()
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(
            f"is no readable Parquet file ({error})",
            item=str(path),
            mend="restore it or ingest the corpus again",
        ) from error


def _require_version(path: Path, metadata: dict[bytes, bytes]) -> None:
    found = metadata.get(_VERSION_KEY)
    if found is None:
        raise ManifestError("is Parquet but no Auricle manifest", item=str(path))
    if found != str(MANIFEST_SCHEMA_VERSION).encode():
        raise ManifestError(
            f"has manifest schema {found.decode(errors='replace')}, "
            f"this program reads {MANIFEST_SCHEMA_VERSION}",
            item=str(path),
            mend="ingest the corpus again with this version",
        )


def _require_unique(path: Path, rows: list[Utterance]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.utterance_id in seen:
            raise ManifestError(
                f"utterance {row.utterance_id} is listed twice",
                item=str(path),
                mend="drop the repeated recording",
            )
        seen.add(row.utterance_id)
