"""The training frame as training reads it: joined by Feast, kept as one Parquet file."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from features.priors import Prior
from governance.canonical import write_atomic
from governance.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """One utterance as training sees it: where its features lie, and what was known before it."""

    utterance_id: str
    speaker: str
    channel: str
    corpus: str
    split: str
    duration_s: float
    level_dbfs: float
    snr_db: float
    speech_ratio: float
    bandwidth_hz: float
    clipping_ratio: float
    partition: int
    start_frame: int
    frames: int
    fingerprint: str
    prior_value: bytes | None  # None: the speaker is unknown, or says this first
    prior_frames: int
    prior_utterances: int

    @property
    def prior(self) -> Prior | None:
        """The speaker's mean over earlier utterances only."""
        return None if self.prior_value is None else Prior.from_bytes(self.prior_value)


def write_rows(path: Path, rows: Sequence[TrainingRow]) -> None:
    """Write the frame atomically, in its order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    names = [field.name for field in fields(TrainingRow)]
    schema = pa.schema(
        [(field.name, kinds.get(field.type, pa.binary())) for field in fields(TrainingRow)]  # type: ignore[arg-type]
    )
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def read_rows(path: Path) -> list[TrainingRow]:
    """Read what `write_rows` wrote; needs no feature store."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [field.name for field in fields(TrainingRow)]
    try:
        with pq.ParquetFile(path) as parquet:
            columns = parquet.read(names).to_pydict()
        return [
            TrainingRow(**dict(zip(names, row, strict=True)))
            for row in zip(*(columns[name] for name in names), strict=True)
        ]
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ConfigError(
            f"no readable training frame ({error})", item=str(path), mend="run publish again"
        ) from error
