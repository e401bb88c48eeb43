"""Shards: plain tar files that are written once, named by their content, and read at an offset."""

import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from governance.canonical import file_digest
from governance.errors import AuricleError, TamperError

MAX_SHARD_BYTES = 256 << 20
_BLOCK = 512
_NAME_HEX = 12


class ShardError(AuricleError):
    """A shard that is missing or does not hold what its manifest says."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a member went; the shard gets its name only when it is complete."""

    number: int
    """Number of the shard."""
    offset: int
    """First byte of the member's data inside the shard."""
    length: int
    """Bytes of the member's data."""


class ShardWriter:
    """Fills numbered tar files; equal members in equal order give equal bytes.

    Use it as a context manager: leaving it by an exception removes what is incomplete.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_SHARD_BYTES, first_number: int = 0
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._number = first_number
        self._names: dict[int, str] = {}
        self._stream: BinaryIO | None = None
        self._sha = hashlib.sha256()
        self._position = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, utterance_id: str, content: bytes) -> Placement:
        """Append ``<utterance_id>.flac`` or ``.wav``; a shard that would pass its size is closed before."""
        suffix = ".wav" if content.startswith(b"RIFF") else ".flac"
        header = _header(utterance_id + suffix, len(content))
        padding = -len(content) % _BLOCK
        if self._stream and self._position + len(header) + len(content) > self._max_bytes:
            self._close_shard()
        if not self._stream:
            self._stream = self._partial.open("wb")
            self._sha, self._position = hashlib.sha256(), 0
        offset = self._position + len(header)
        self._write(header + content + bytes(padding))
        return Placement(number=self._number, offset=offset, length=len(content))

    def close(self) -> dict[int, str]:
        """Complete the last shard; the file name of every shard by its number."""
        if self._stream:
            self._close_shard()
        return dict(self._names)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif self._stream:
            self._stream.close()
            self._partial.unlink(missing_ok=True)

    @property
    def _partial(self) -> Path:
        return self._folder / f".shard-{self._number:05d}.partial"

    def _write(self, content: bytes) -> None:
        assert self._stream is not None
        self._stream.write(content)
        self._sha.update(content)
        self._position += len(content)

    def _close_shard(self) -> None:
        assert self._stream is not None
        self._write(bytes(2 * _BLOCK))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        name = f"shard-{self._number:05d}-{self._sha.hexdigest()[:_NAME_HEX]}.tar"
        self._partial.rename(self._folder / name)
        self._names[self._number] = name
        self._stream = None
        self._number += 1


def read_member(root: Path, shard: str, offset: int, length: int) -> bytes:
    """The bytes of one member; ``shard`` is the manifest's relative path under ``root``."""
    relative = PurePosixPath(shard)
    if relative.is_absolute() or ".." in relative.parts or offset < 0 or length < 0:
        raise ShardError("points outside the shards' folder", item=shard)
    try:
        with (root / relative).open("rb") as stream:
            stream.seek(offset)
            content = stream.read(length)
    except OSError as error:
        raise ShardError(
            f"cannot be read below {root} ({error.strerror})",
            item=shard,
            mend="fetch it with dvc pull or ingest the corpus again",
        ) from error
    if len(content) != length:
        raise TamperError(
            f"ends before byte {offset + length:,}, where the manifest has a recording",
            item=shard,
            mend="fetch it with dvc pull or ingest the corpus again",
        )
    return content


def verify_shard(path: Path) -> str:
    """The digest of a shard; one whose bytes no longer match the digest in its name is refused."""
    named = path.stem.rpartition("-")[2]
    if not path.is_file():
        raise ShardError(
            "its manifest names this shard, and it is missing",
            item=str(path),
            mend="fetch it with dvc pull or ingest the corpus again",
        )
    digest = file_digest(path)
    if digest.removeprefix("sha256:")[:_NAME_HEX] != named:
        raise TamperError(
            "its content does not match the digest in its name",
            item=str(path),
            mend="fetch it with dvc pull or ingest the corpus again",
        )
    return digest


def shard_number(name: str) -> int:
    """The number in a shard's file name or relative path."""
    return int(PurePosixPath(name).name.split("-")[1])


def _header(name: str, length: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = length
    info.mtime = info.uid = info.gid = 0
    info.mode = 0o444
    return info.tobuf(tarfile.USTAR_FORMAT)
