"""Ed25519 signing keys of a workspace: made on first use, readable by their owner only."""

import contextlib
import os
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from governance.errors import ConfigError

_KEY_BYTES = 32
_OPEN_TO_OTHERS = 0o077


def signing_key(folder: Path, name: str = "ledger", *, create: bool = True) -> Ed25519PrivateKey:
    """The key ``<folder>/<name>.key`` (32 raw bytes, mode 0600).

    It is created where it is not there; with ``create=False`` that is an error, because a new key
    cannot vouch for what an old one signed.
    """
    path = folder / f"{name}.key"
    if not path.exists():
        if not create:
            raise ConfigError(
                "the signing key is missing", item=str(path), mend="restore it from its backup"
            )
        _create(path)
    if path.stat().st_mode & _OPEN_TO_OTHERS:
        raise ConfigError(
            "others may read this signing key", item=str(path), mend=f"chmod 600 '{path}'"
        )
    content = path.read_bytes()
    if len(content) != _KEY_BYTES:
        raise ConfigError(
            f"{len(content)} bytes, an Ed25519 key has {_KEY_BYTES}",
            item=str(path),
            mend="restore the key from its backup; a new key cannot vouch for old checkpoints",
        )
    return Ed25519PrivateKey.from_private_bytes(content)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = Ed25519PrivateKey.generate().private_bytes(
        Encoding.Raw, PrivateFormat.Raw, NoEncryption()
    )
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # a link never replaces: of two processes that create at once, the first one wins
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half, hexadecimal."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def is_signed_by(key: Ed25519PrivateKey, signature: bytes, content: bytes) -> bool:
    """Whether ``signature`` over ``content`` is ``key``'s."""
    public: Ed25519PublicKey = key.public_key()
    try:
        public.verify(signature, content)
    except InvalidSignature:
        return False
    return True
