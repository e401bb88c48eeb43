"""HTTPS and WSS: certificate, key, and the oldest version of TLS that is spoken."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.errors import ConfigError

MINIMUMS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
MINIMUM_DEFAULT = "1.2"
MINIMUM = "AURICLE_TLS_MINIMUM"


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files for HTTPS and WSS, in PEM."""

    certificate: Path  # with the chain below it
    key: Path
    minimum: str = MINIMUM_DEFAULT

    def __post_init__(self) -> None:
        for path in (self.certificate, self.key):
            if not path.is_file():
                raise ConfigError("no such file", item=str(path))
        _known(self.minimum)
        try:  # now, and not in a log of a worker that does not start
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                self.certificate, self.key, password=lambda: b""
            )
        except ssl.SSLError as error:
            reason = error.reason or "not PEM, or the key has a passphrase"
            raise ConfigError(
                f"certificate and key cannot be used ({reason})", item=str(self.certificate)
            ) from None

    def arguments(self) -> list[str]:
        """Of ``bentoml serve``."""
        return ["--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(self.key)]


def speak_at_least(minimum: str) -> None:
    """Let uvicorn make its TLS contexts with this minimum; empty leaves its own, 1.2.

    BentoML passes a protocol on, but no minimum: this is the one place where it can be said.
    """
    if not minimum:
        return
    version = _known(minimum)
    import uvicorn.config

    made = uvicorn.config.create_ssl_context

    def with_minimum(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        context = made(*args, **kwargs)
        context.minimum_version = version
        return context

    uvicorn.config.create_ssl_context = with_minimum


def _known(minimum: str) -> ssl.TLSVersion:
    if minimum not in MINIMUMS:
        raise ConfigError(f"must be {' or '.join(MINIMUMS)}", item=f"TLS minimum {minimum!r}")
    return MINIMUMS[minimum]
