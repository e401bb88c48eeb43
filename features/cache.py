"""Content-addressed cache of computed features: what was heard once is never computed again.

It lies outside DVC's outputs, because DVC deletes those before a stage runs. Features of a batch
share one pack file, named by its content and written in one move; an SQLite table says which rows
of which pack belong to (utterance, front end, speed). A pack without rows in the table is litter,
never an error, so any number of processes may add at once and may die at any point.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec
from governance.canonical import bytes_digest, write_atomic
from governance.errors import TamperError

Halves = NDArray[np.float16]
Key = tuple[str, int]
"""Utterance id and speed in thousandths."""

_COMPUTATION = "c1"  # raised when decoding, resampling or packing changes at an equal FeatureSpec
_TABLE = """
CREATE TABLE IF NOT EXISTS entries (
  front_end TEXT NOT NULL, utterance_id TEXT NOT NULL, speed_permille INTEGER NOT NULL,
  pack TEXT NOT NULL, first_row INTEGER NOT NULL, frames INTEGER NOT NULL, crc32 INTEGER NOT NULL,
  PRIMARY KEY (front_end, utterance_id, speed_permille)) WITHOUT ROWID
"""


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """Where the features of one utterance at one speed lie."""

    utterance_id: str
    speed_permille: int
    pack: str  # file name below packs/
    first_row: int
    frames: int
    crc32: int  # of the rows' bytes


def write_pack(packs: Path, features: Iterable[tuple[Key, Halves]]) -> list[CacheEntry]:
    """Write one batch as one file; give the entries that `FeatureCache.add` records."""
    parts = [(key, np.ascontiguousarray(x_TF)) for key, x_TF in features]
    content = b"".join(x_TF.tobytes() for _, x_TF in parts)
    pack = f"{bytes_digest(content).removeprefix('sha256:')[:32]}.f16"
    write_atomic(packs / pack, content)
    entries, row = [], 0
    for (utterance_id, speed_permille), x_TF in parts:
        entries.append(
            CacheEntry(
                utterance_id=utterance_id,
                speed_permille=speed_permille,
                pack=pack,
                first_row=row,
                frames=len(x_TF),
                crc32=zlib.crc32(x_TF.tobytes()),
            )
        )
        row += len(x_TF)
    return entries


class FeatureCache:
    """The features of one front end in one cache folder."""

    def __init__(self, folder: Path, spec: FeatureSpec) -> None:
        self.packs = folder / "packs"
        self.packs.mkdir(parents=True, exist_ok=True)
        self._index = folder / "index.db"
        self._front_end = f"{spec.fingerprint()}/{_COMPUTATION}"
        self._mel_bins = spec.mel_bins
        self._open_packs: dict[str, Halves] = {}
        with self._connect() as connection:
            connection.execute(_TABLE)

    def entries(self) -> dict[Key, CacheEntry]:
        """Every entry whose pack is there in full."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT utterance_id, speed_permille, pack, first_row, frames, crc32 "
                "FROM entries WHERE front_end = ?",
                (self._front_end,),
            ).fetchall()
        row_bytes = self._mel_bins * np.dtype(np.float16).itemsize
        sizes = {path.name: path.stat().st_size // row_bytes for path in self.packs.glob("*.f16")}
        found = (
            CacheEntry(
                utterance_id=row[0],
                speed_permille=row[1],
                pack=row[2],
                first_row=row[3],
                frames=row[4],
                crc32=row[5],
            )
            for row in rows
        )
        return {
            (entry.utterance_id, entry.speed_permille): entry
            for entry in found
            if entry.first_row + entry.frames <= sizes.get(entry.pack, -1)
        }

    def add(self, entries: Iterable[CacheEntry]) -> None:
        """Record a pack's entries, all or none; a later pack replaces one that was lost."""
        with self._connect() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        self._front_end,
                        entry.utterance_id,
                        entry.speed_permille,
                        entry.pack,
                        entry.first_row,
                        entry.frames,
                        entry.crc32,
                    )
                    for entry in entries
                ],
            )

    def read(self, entry: CacheEntry) -> Halves:
        """The features [frames, mel_bins] of an entry, checked against its checksum."""
        pack = self._open_packs.get(entry.pack)
        if pack is None:
            path = self.packs / entry.pack
            empty = np.empty((0, self._mel_bins), np.float16)
            size = path.stat().st_size
            pack = np.memmap(path, np.float16, "r").reshape(-1, self._mel_bins) if size else empty
            self._open_packs[entry.pack] = pack
        x_TF = pack[entry.first_row : entry.first_row + entry.frames]
        if zlib.crc32(x_TF.tobytes()) != entry.crc32:
            raise TamperError(
                f"cached features of {entry.utterance_id} are damaged",
                item=str(self.packs / entry.pack),
                mend="delete this file; its features are then computed again",
            )
        return x_TF

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._index, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
