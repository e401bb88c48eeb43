"""The feature archive: extract once, then read any utterance at any of its speeds.

`extract` fills the cache with what is missing and writes the archive's folder from the cache;
`FeatureArchive` reads that folder through memory maps.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.manifest import Utterance
from features.cache import CacheEntry, FeatureCache, Key
from features.compute import Job, Progress, compute_missing
from features.norm import NormStats, StatsAccumulator
from features.partitions import (
    IndexRow,
    Located,
    index_digest,
    partition_file,
    plan_partitions,
    read_index,
    write_index,
    write_partition,
)
from features.spec import FeatureSpec, require_same
from governance.canonical import canonical_json, write_atomic
from governance.errors import AuricleError, ConfigError

ARCHIVE_SCHEMA = 1
_ARCHIVE_FILE = "archive.json"
_NORM_FILE = "norm.json"
_SPEEDS = (0.5, 2.0)
_AGAIN = "run featurize again"


@dataclass(frozen=True, kw_only=True)
class ArchiveReport:
    """What one extraction did. Counts are of (utterance, speed) pairs."""

    computed: int
    reused: int  # found in the cache
    frames: int  # in the whole archive
    seconds: float  # of audio in the whole archive, at the speeds played
    partitions: int
    index_digest: str  # follows from the features and their order alone


def extract(
    utterances: Sequence[Utterance],
    shards_root: Path,
    spec: FeatureSpec,
    cache_dir: Path,
    out_dir: Path,
    *,
    speeds: Sequence[float] = (1.0,),
    workers: int = 1,
    partition_max_mb: int = 256,
    progress: Progress = lambda done, total: None,
) -> ArchiveReport:
    """Bring the archive in ``out_dir`` up to ``utterances``; compute only what was never heard.

    Speeds other than 1 are made for the train split only. Mean and deviation over the train split
    at speed 1 go to ``norm.json``, where there is a train split.
    """
    wanted = _wanted(utterances, _permille(speeds))
    cache = FeatureCache(cache_dir, spec)
    known = cache.entries()
    jobs = [
        Job(utterance=utterance, speeds_permille=missing)
        for utterance, permille in wanted
        if (missing := tuple(p for p in permille if (utterance.utterance_id, p) not in known))
    ]
    if jobs:
        compute_missing(jobs, shards_root, spec, cache, workers, progress)
        known = cache.entries()
    items = [
        Located(shard=utterance.shard, entry=known[utterance.utterance_id, p])
        for utterance, permille in wanted
        for p in permille
    ]
    row_bytes = spec.mel_bins * np.dtype(np.float16).itemsize
    parts = list(plan_partitions(items, max(1, partition_max_mb * 1_000_000 // row_bytes)))
    train = {utterance.utterance_id for utterance in utterances if utterance.split == "train"}
    rows = _write_archive(out_dir, parts, spec, cache, train)
    computed = sum(len(job.speeds_permille) for job in jobs)
    frames = sum(row.frames for row in rows)
    return ArchiveReport(
        computed=computed,
        reused=len(items) - computed,
        frames=frames,
        seconds=frames * spec.hop_samples / spec.sample_rate_hz,
        partitions=len(parts),
        index_digest=index_digest(out_dir, rows),
    )


class FeatureArchive:
    """Read access to an archive. May be sent to worker processes; maps open where they are used."""

    def __init__(self, folder: Path, *, expected_spec: FeatureSpec | None = None) -> None:
        self.folder = folder
        document = _read_json(folder / _ARCHIVE_FILE)
        if document.get("archive_schema") != ARCHIVE_SCHEMA:
            raise ConfigError(
                f"archive schema {document.get('archive_schema')!r}, expected {ARCHIVE_SCHEMA}",
                item=str(folder),
                mend=_AGAIN,
            )
        self.spec = FeatureSpec.from_json(document["feature_spec"])
        if expected_spec is not None:
            require_same(expected_spec, self.spec, item=str(folder))
        self._rows: dict[Key, IndexRow] = {}
        self._speeds: dict[str, tuple[float, ...]] = {}
        for row in read_index(folder):
            self._rows[row.utterance_id, round(row.speed * 1000)] = row
            self._speeds[row.utterance_id] = (*self.speeds(row.utterance_id), row.speed)
        self._maps: dict[int, NDArray[np.float16]] = {}

    def __contains__(self, utterance_id: str) -> bool:
        return (utterance_id, 1000) in self._rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a pickled map would carry the whole file along

    @property
    def norm(self) -> NormStats:
        """Global mean and deviation of the train split."""
        return NormStats.from_json(_read_json(self.folder / _NORM_FILE))

    @property
    def rows(self) -> tuple[IndexRow, ...]:
        """The index, in the order of the partitions."""
        return tuple(self._rows.values())

    def speeds(self, utterance_id: str) -> tuple[float, ...]:
        """The speeds at which an utterance is held."""
        return self._speeds.get(utterance_id, ())

    def frames(self, utterance_id: str, speed: float = 1.0) -> int:
        """Number of frames, without touching the features."""
        return self._row(utterance_id, speed).frames

    def row(self, utterance_id: str, speed: float = 1.0) -> IndexRow:
        """Where an utterance lies."""
        return self._row(utterance_id, speed)

    def get(self, utterance_id: str, speed: float = 1.0) -> NDArray[np.float16]:
        """Log-mel features [frames, mel_bins], mapped from disk and read-only."""
        row = self._row(utterance_id, speed)
        if row.frames == 0:
            return np.empty((0, self.spec.mel_bins), np.float16)
        part = self._maps.get(row.partition)
        if part is None:
            part = np.load(self.folder / partition_file(row.partition), mmap_mode="r")
            self._maps[row.partition] = part
        return part[row.start_frame : row.start_frame + row.frames]

    def _row(self, utterance_id: str, speed: float) -> IndexRow:
        row = self._rows.get((utterance_id, round(speed * 1000)))
        if row is None:
            raise AuricleError(
                f"the archive holds no features of this utterance at speed {speed:g}",
                item=utterance_id,
                mend=_AGAIN,
            )
        return row


def _permille(speeds: Sequence[float]) -> tuple[int, ...]:
    for speed in speeds:
        if not _SPEEDS[0] <= speed <= _SPEEDS[1]:
            raise ConfigError(
                f"{speed:g} is not between {_SPEEDS[0]:g} and {_SPEEDS[1]:g}",
                item="speeds",
                mend="speeds such as 0.9, 1.0 and 1.1 keep speech natural",
            )
    return tuple(sorted({round(speed * 1000) for speed in speeds} | {1000}))


def _wanted(
    utterances: Sequence[Utterance], permille: tuple[int, ...]
) -> list[tuple[Utterance, tuple[int, ...]]]:
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.utterance_id in seen:
            raise ConfigError(
                "listed twice", item=utterance.utterance_id, mend="drop one of the duplicates"
            )
        seen.add(utterance.utterance_id)
    return [(u, permille if u.split == "train" else (1000,)) for u in utterances]


def _write_archive(
    out_dir: Path,
    parts: Sequence[Sequence[CacheEntry]],
    spec: FeatureSpec,
    cache: FeatureCache,
    train: set[str],
) -> list[IndexRow]:
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / _ARCHIVE_FILE).unlink(missing_ok=True)  # incomplete until it is written last
    (out_dir / _NORM_FILE).unlink(missing_ok=True)
    for stale in out_dir.glob("part-*"):
        stale.unlink()
    statistics = StatsAccumulator(spec.mel_bins)

    def read(entry: CacheEntry) -> NDArray[np.float16]:
        x_TF = cache.read(entry)
        if entry.speed_permille == 1000 and entry.utterance_id in train:
            statistics.add(x_TF)
        return x_TF

    rows: list[IndexRow] = []
    for number, members in enumerate(parts):
        rows += write_partition(out_dir, number, members, spec.mel_bins, read)
    write_index(out_dir, rows)
    if statistics.frames:
        write_atomic(out_dir / _NORM_FILE, canonical_json(statistics.stats().to_json()))
    document = {
        "archive_schema": ARCHIVE_SCHEMA,
        "feature_spec": spec.to_json(),
        "feature_fingerprint": spec.fingerprint(),
        "partitions": len(parts),
    }
    write_atomic(out_dir / _ARCHIVE_FILE, canonical_json(document))
    return rows


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"not readable ({error})", item=str(path), mend=_AGAIN) from error
