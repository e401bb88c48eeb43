"""The archive on disk: float16 partitions, their offsets, and one index over all.

A partition holds utterances of one shard, ordered by content hash, and closes when it is full.
Shards never change, so new audio adds partitions and leaves the old ones as they were, byte for
byte; and the order is the same on every machine.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cache import CacheEntry
from governance.canonical import digest, file_digest, write_atomic

INDEX_FILE = "index.parquet"


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """Where the archive keeps one utterance at one speed."""

    utterance_id: str
    speed: float
    partition: int
    start_frame: int
    frames: int


@dataclass(frozen=True, kw_only=True)
class Located:
    """A cached utterance and the shard that it came from."""

    shard: str
    entry: CacheEntry


def partition_file(number: int) -> str:
    """Name of a partition's features."""
    return f"part-{number:05d}.f16.npy"


def offsets_file(number: int) -> str:
    """Name of a partition's frame offsets, one more than it has utterances."""
    return f"part-{number:05d}.offsets.npy"


def plan_partitions(items: Iterable[Located], max_frames: int) -> Iterator[list[CacheEntry]]:
    """Cut the ordered items into partitions of at most ``max_frames`` (one item always fits)."""
    ordered = sorted(items, key=lambda x: (x.shard, x.entry.utterance_id, x.entry.speed_permille))
    for _, group in groupby(ordered, key=lambda item: item.shard):
        members: list[CacheEntry] = []
        frames = 0
        for item in group:
            if members and frames + item.entry.frames > max_frames:
                yield members
                members, frames = [], 0
            members.append(item.entry)
            frames += item.entry.frames
        if members:
            yield members


def write_partition(
    folder: Path,
    number: int,
    members: Sequence[CacheEntry],
    mel_bins: int,
    read: Callable[[CacheEntry], NDArray[np.float16]],
) -> list[IndexRow]:
    """Write one partition and its offsets; give its rows of the index."""
    offsets = np.zeros(len(members) + 1, np.int64)
    np.cumsum([entry.frames for entry in members], out=offsets[1:])
    path = folder / partition_file(number)
    temporary = path.with_suffix(".partial")
    if offsets[-1] == 0:  # nothing can be mapped from an empty file
        with temporary.open("wb") as stream:
            np.save(stream, np.empty((0, mel_bins), np.float16))
    else:
        shape = (int(offsets[-1]), mel_bins)
        target = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        for entry, start in zip(members, offsets, strict=False):
            target[start : start + entry.frames] = read(entry)
        target.flush()
        del target
    temporary.replace(path)
    with (folder / offsets_file(number)).open("wb") as stream:
        np.save(stream, offsets)
    return [
        IndexRow(
            utterance_id=entry.utterance_id,
            speed=entry.speed_permille / 1000,
            partition=number,
            start_frame=int(start),
            frames=entry.frames,
        )
        for entry, start in zip(members, offsets, strict=False)
    ]


def write_index(folder: Path, rows: Sequence[IndexRow]) -> None:
    """Write ``index.parquet`` in the order of the partitions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pydict(_columns(rows), schema=_schema()), sink, compression="zstd")
    write_atomic(folder / INDEX_FILE, sink.getvalue().to_pybytes())


def read_index(folder: Path) -> list[IndexRow]:
    """Read what `write_index` wrote."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(folder / INDEX_FILE) as parquet:
        columns: dict[str, list[Any]] = parquet.read().to_pydict()
    names = [field.name for field in fields(IndexRow)]
    return [
        IndexRow(**dict(zip(names, row, strict=True)))
        for row in zip(*(columns[name] for name in names), strict=True)
    ]


def index_digest(folder: Path, rows: Sequence[IndexRow]) -> str:
    """Digest of the index's content and of every partition that it names."""
    numbers = sorted({row.partition for row in rows})
    partitions = {number: file_digest(folder / partition_file(number)) for number in numbers}
    return digest(
        {
            "rows": [list(astuple(row)) for row in rows],
            "partitions": {partition_file(number): partitions[number] for number in numbers},
        }
    )


def _columns(rows: Sequence[IndexRow]) -> dict[str, list[Any]]:
    return {field.name: [getattr(row, field.name) for row in rows] for field in fields(IndexRow)}


def _schema() -> Any:
    import pyarrow as pa

    kinds = {str: pa.string(), float: pa.float64(), int: pa.int64()}
    return pa.schema(
        [pa.field(field.name, kinds[field.type], nullable=False) for field in fields(IndexRow)]  # type: ignore[index]
    )
