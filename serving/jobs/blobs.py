"""Uploaded audio on local disk, from before a job's acceptance to its end.

A blob's name is the digest of its bytes and the id of its job. Two jobs never share a file, so
that to forget one job is to unlink one file, with no count of users that a crash could leave wrong.
"""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from serving.jobs.failpoints import failpoint

_BLOCK_BYTES = 1 << 20
_ORPHAN_AGE_S = 3600.0  # no upload takes this long between its rename and its commit


def content_digest(source: BinaryIO) -> str:
    """``sha256:<hex>`` from the start of a seekable file; it is left at its start."""
    sha = hashlib.sha256()
    source.seek(0)
    while block := source.read(_BLOCK_BYTES):
        sha.update(block)
    source.seek(0)
    return "sha256:" + sha.hexdigest()


class BlobStore:
    """Files of one folder that nobody else may read."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder / "blobs"
        self._incoming = folder / "incoming"
        self._clock = clock
        for made in (folder, self._folder, self._incoming):
            made.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sync(folder)

    def put(self, source: BinaryIO, *, job_id: str, digest: str) -> str:
        """Store a file's bytes durably; its name. Interrupted anywhere, it leaves no half blob."""
        name = f"{digest.removeprefix('sha256:')}.{job_id}"
        incoming = self._incoming / name
        source.seek(0)
        try:
            with os.fdopen(
                os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as sink:
                while block := source.read(_BLOCK_BYTES):
                    sink.write(block)
                sink.flush()
                os.fsync(sink.fileno())
            failpoint("blob_written")
            incoming.replace(self._folder / name)
        except BaseException:
            incoming.unlink(missing_ok=True)
            raise
        _sync(self._folder)
        failpoint("blob_renamed")
        return name

    def read(self, name: str) -> bytes:
        """A blob's bytes."""
        return (self._folder / name).read_bytes()

    def scratch(self, job_id: str) -> Path:
        """A place for what a worker fetches for a job; the worker removes it."""
        return self._incoming / f"fetched.{job_id}"

    def remove(self, name: str) -> None:
        """Forget a blob; one that is gone already is no error."""
        if name:
            (self._folder / name).unlink(missing_ok=True)
            failpoint("blob_removed")

    def remove_orphans(self, in_use: Callable[[], set[str]]) -> int:
        """Remove old files that no open job needs: what a crash left behind. How many."""
        oldest_s = self._clock() - _ORPHAN_AGE_S
        old = [
            path
            for folder in (self._folder, self._incoming)
            for path in folder.iterdir()
            if _modified_s(path) < oldest_s
        ]
        needed = in_use() if old else set()
        orphans = [path for path in old if path.parent == self._incoming or path.name not in needed]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its job ended meanwhile
        return float("inf")


def _sync(folder: Path) -> None:
    """A rename is durable once its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
