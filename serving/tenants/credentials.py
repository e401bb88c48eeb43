"""API keys and client tokens as texts: how they look, how they are kept, how they are checked.

A key is ``auricle_<id>_<secret>``: 48 bits to look it up by and 256 random bits. At rest lies
HMAC-SHA-256 of the secret under a per-key salt and a server secret that has a file of its own. A slow
hash (argon2, scrypt) protects what people choose; 256 random bits cannot be guessed at any speed, and
each request would pay for the slowness. The server secret makes a stolen database worthless by
itself, and signs client tokens under another label.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

_KEY = re.compile(r"auricle_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
_CREDENTIAL_CHARACTERS = 4096
SECRET_BYTES = 32


@dataclass(frozen=True, kw_only=True, repr=False)
class KeyText:
    """A presented key, taken apart. It has no representation, so that no log can show it."""

    key_id: str
    secret: str

    def text(self) -> str:
        """What the customer keeps."""
        return f"auricle_{self.key_id}_{self.secret}"

    def digest(self, salt: bytes, server_secret: bytes) -> bytes:
        """What is kept of it."""
        return _mac(server_secret, b"api-key", salt + self.secret.encode())


def new_key() -> KeyText:
    """A fresh key."""
    return KeyText(key_id=secrets.token_hex(6), secret=secrets.token_urlsafe(SECRET_BYTES))


def read_key(text: str) -> KeyText | None:
    """The parts of a key; None for any other text."""
    match = _KEY.fullmatch(text)
    return KeyText(key_id=match[1], secret=match[2]) if match else None


def fingerprint(credential: str, server_secret: bytes) -> bytes:
    """What a cache may remember of a credential."""
    return _mac(server_secret, b"cache", credential[:_CREDENTIAL_CHARACTERS].encode())


def same(one: bytes, other: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one, other)


def sign_token(claims: dict[str, Any], server_secret: bytes) -> str:
    """A JSON Web Token (HS256) of the claims."""
    content = json.dumps(claims, separators=(",", ":"), sort_keys=True).encode()
    body = f"{_HEADER}.{_encoded(content)}"
    return f"{body}.{_encoded(_mac(server_secret, b'client-token', body.encode()))}"


def read_token(text: str, server_secret: bytes) -> dict[str, Any] | None:
    """The claims of a token that this service signed; None for anything else. Looks at no clock."""
    body, _, signature = text.rpartition(".")
    if len(text) > _CREDENTIAL_CHARACTERS or not body.startswith(f"{_HEADER}."):
        return None
    expected = _encoded(_mac(server_secret, b"client-token", body.encode()))
    if not same(signature.encode(), expected.encode()):
        return None
    content = body.partition(".")[2]
    claims = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
    return dict(claims)


def _mac(secret: bytes, label: bytes, content: bytes) -> bytes:
    return hmac.new(secret, label + b"\0" + content, hashlib.sha256).digest()


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
