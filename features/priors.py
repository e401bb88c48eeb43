"""Normalisation priors of known speakers, as a small key-value view that serving reads.

Feast keeps the priors; an operation projects its online store into this one SQLite file, so that
the service carries no feature store. A value is the speaker's mean log-mel over what was heard
before, fixed for a whole stream. Whoever is unknown, or is found too late, starts cold.
"""

import os
import sqlite3
import struct
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from governance.canonical import bytes_digest, file_digest
from governance.errors import AuricleError, ConfigError

DEFAULT_TENANT = "default"
NARROW_RATE_HZ = 8_000
_VIEW_SCHEMA = 1
_HEADER = struct.Struct("<q")  # frames; the mean follows as little-endian float32
_MEND = "project the online store again: dvc repro publish"


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """Mean log-mel of a speaker on a kind of channel."""

    mean_F: NDArray[np.float32]
    frames: int  # how many frames it was taken from

    def to_bytes(self) -> bytes:
        """The stored value, the same in Feast and in the view."""
        return _HEADER.pack(self.frames) + self.mean_F.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, value: bytes) -> "Prior":
        """Read what `to_bytes` gave."""
        body = len(value) - _HEADER.size
        if body <= 0 or body % 4:
            raise ConfigError(f"a value of {len(value)} bytes", item="prior", mend=_MEND)
        mean_F = np.frombuffer(value, "<f4", offset=_HEADER.size).astype(np.float32)
        return cls(mean_F=mean_F, frames=_HEADER.unpack_from(value)[0])

    @property
    def digest(self) -> str:
        """Names the prior in a transcript, so that a replay can be exact."""
        return bytes_digest(self.to_bytes())


@dataclass(frozen=True, kw_only=True, order=True)
class PriorKey:
    """Whose prior it is; another tenant's speaker of the same name is somebody else."""

    tenant: str
    speaker: str  # pseudonym
    channel: str  # as `channel_of` says
    fingerprint: str  # of the FeatureSpec that the mean was computed with


def channel_of(native_rate_hz: int) -> str:
    """``narrow`` for telephone rates, else ``wide``: what colours a mean most."""
    return "narrow" if native_rate_hz <= NARROW_RATE_HZ else "wide"


def write_view(path: Path, rows: Iterable[tuple[PriorKey, bytes]]) -> str:
    """Replace the view in one move; give its digest. Equal rows give equal bytes."""
    ordered = sorted(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        with closing(sqlite3.connect(name, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA user_version = {_VIEW_SCHEMA}")
            connection.execute("BEGIN")
            connection.execute(
                "CREATE TABLE priors (tenant TEXT, speaker TEXT, channel TEXT, fingerprint TEXT, "
                "value BLOB NOT NULL, PRIMARY KEY (tenant, speaker, channel, fingerprint)) "
                "WITHOUT ROWID"
            )
            connection.executemany(
                "INSERT INTO priors VALUES (?, ?, ?, ?, ?)",
                [(k.tenant, k.speaker, k.channel, k.fingerprint, value) for k, value in ordered],
            )
            connection.execute("COMMIT")
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except sqlite3.IntegrityError as error:
        raise ConfigError("two rows for one key", item=str(path), mend=_MEND) from error
    finally:
        Path(name).unlink(missing_ok=True)
    return file_digest(path)


class PriorView:
    """Read access for the service. A view that is replaced on disk is followed at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        # Threads, because nothing else can stop waiting for a disk that does not answer.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="priors")
        self._connection = self._open()

    def lookup(self, key: PriorKey, *, deadline_ms: float = 20.0) -> Prior | None:
        """The prior of ``key``; None where there is none, or none within the deadline: cold."""
        if not key.speaker or deadline_ms <= 0:
            return None
        future = self._pool.submit(self._read, key, deadline_ms)
        try:
            value = future.result(timeout=deadline_ms / 1000)
            return None if value is None else Prior.from_bytes(value)
        except (LateError, OSError, sqlite3.Error, AuricleError):
            future.cancel()  # a prior only helps: nothing about it may fail a request
            return None

    @property
    def digest(self) -> str:
        """Digest of the view as it lies on disk now."""
        return file_digest(self._path)

    def close(self) -> None:
        """Let go of the file and of the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._connection.close()

    def _read(self, key: PriorKey, deadline_ms: float) -> bytes | None:
        with self._lock:
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) != self._seen:
                fresh = self._open()
                self._connection.close()
                self._connection = fresh
            self._connection.execute(f"PRAGMA busy_timeout = {max(1, int(deadline_ms))}")
            row = self._connection.execute(
                "SELECT value FROM priors "
                "WHERE tenant = ? AND speaker = ? AND channel = ? AND fingerprint = ?",
                (key.tenant, key.speaker, key.channel, key.fingerprint),
            ).fetchone()
        return None if row is None else row[0]

    def _open(self) -> sqlite3.Connection:
        try:
            found = self._path.stat()
            connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"not readable ({error})", item=str(self._path), mend=_MEND
            ) from error
        if version != _VIEW_SCHEMA:
            raise ConfigError(
                f"schema {version}, expected {_VIEW_SCHEMA}", item=str(self._path), mend=_MEND
            )
        self._seen = (found.st_ino, found.st_mtime_ns)
        return connection
