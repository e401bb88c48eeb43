"""What a tenant may use, and what is hidden in its answers: the part of the key store that is no
secret."""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from governance.errors import ConfigError

_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most of everything; None is no limit."""

    requests_per_minute: int | None = None  # requests and opened streams
    audio_s_per_minute: float | None = None  # seconds of audio taken in, files and streams
    audio_s_per_day: float | None = None  # UTC days
    audio_s_per_month: float | None = None  # UTC months
    streams: int | None = None  # live at once

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigError(f"{value} is not above 0", item=field.name)


@dataclass(frozen=True, kw_only=True)
class TenantPolicy:
    """What a key store says of one tenant."""

    limits: Limits = Limits()
    redact: str = ""  # values of ``redact``, with commas
    redact_mode: str = "mask"

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> "TenantPolicy":
        """The reverse of ``plain``."""
        return cls(
            limits=Limits(**content["limits"]),
            redact=content["redact"],
            redact_mode=content["redact_mode"],
        )


def require_tenant_name(name: str) -> str:
    """Tenants are named in records and folders: lower case, digits and . _ - only."""
    if not _TENANT.fullmatch(name):
        raise ConfigError(
            "must be 1 to 63 of a-z, 0-9 and . _ -, a letter or digit first", item="tenant"
        )
    return name
