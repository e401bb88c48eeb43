"""Canonical JSON and digests: equal content has equal bytes on every machine."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinities are refused (RFC 8785 in spirit)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """``sha256:<hex>`` of the canonical JSON of ``value``."""
    return bytes_digest(canonical_json(value).encode())


def bytes_digest(content: bytes) -> str:
    """``sha256:<hex>`` of raw bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """``sha256:<hex>`` of a file, read in blocks."""
    with path.open("rb") as stream:
        return stream_digest(stream)


def stream_digest(stream: BinaryIO) -> str:
    """``sha256:<hex>`` of an open binary file, from its beginning, read in blocks."""
    sha = hashlib.sha256()
    stream.seek(0)
    while block := stream.read(_BLOCK_BYTES):
        sha.update(block)
    return "sha256:" + sha.hexdigest()


def tree_digest(folder: Path) -> str:
    """``sha256:<hex>`` over the relative names and digests of every file below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest({path.relative_to(folder).as_posix(): file_digest(path) for path in files})


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write so that a reader sees the old file or the new one, never a part; survives power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
