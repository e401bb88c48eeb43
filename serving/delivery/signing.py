"""Standard Webhooks signatures (HMAC-SHA256 over id, time and body), and their secrets."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

_PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """A fresh secret in the form that verifying libraries read."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(
    message_id: str, body: bytes, *, timestamp_s: int, signing_secrets: Iterable[str]
) -> Mapping[str, str]:
    """The headers of one attempt; while a secret is rotated out both signatures stand beside."""
    content = f"{message_id}.{timestamp_s}.".encode() + body
    signatures = []
    for secret in signing_secrets:
        key = base64.b64decode(secret.removeprefix(_PREFIX))
        made = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        signatures.append(f"v1,{made}")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }
