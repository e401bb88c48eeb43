"""The one fact about a request that every room may ask for: on whose behalf it runs."""

from dataclasses import dataclass

SCOPES = frozenset({"transcribe", "listen", "jobs", "unredacted", "admin"})
DEFAULT_TENANT = "default"  # everybody, where there is no key store
SCOPE_KEY = "auricle.caller"  # where the ASGI scope of an authenticated request holds its Caller


@dataclass(frozen=True, kw_only=True)
class Caller:
    """An authenticated caller. Without a key store everybody on loopback is the default tenant."""

    tenant: str = DEFAULT_TENANT
    key_id: str = ""  # public half of the API key; empty without a key store
    scopes: frozenset[str] = SCOPES
    granted: bool = False  # by a short-lived client token, not by the key itself
    redact: str = ""  # what the tenant hides wherever a request says nothing else
    redact_mode: str = "mask"


ANYBODY = Caller()
