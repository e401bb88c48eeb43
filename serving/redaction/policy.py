"""What a caller wants hidden, in our names and in those of Deepgram's ``redact``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from governance.errors import ConfigError

Mode = Literal["mask", "remove"]
MODES: tuple[Mode, ...] = ("mask", "remove")

DIGIT_KINDS = frozenset({"card", "cvv", "expiry", "ssn", "phone", "dob", "iban", "account"})
LETTER_KINDS = frozenset({"email", "spelled", "name"})
KINDS = DIGIT_KINDS | LETTER_KINDS | {"number", "any_number"}
"""``number``: three digits in a row or more. ``any_number``: every number, prices and times too."""

_PERSONAL = DIGIT_KINDS | LETTER_KINDS
_GROUPS: dict[str, frozenset[str]] = {
    "pci": frozenset({"card", "cvv", "expiry"}),
    "pii": _PERSONAL,
    "phi": _PERSONAL | {"number"},
    "numbers": frozenset({"number"}),
    "true": frozenset({"number"}),
    "aggressive_numbers": frozenset({"any_number"}),
    "credit_card": frozenset({"card"}),
    "credit_card_expiration": frozenset({"expiry"}),
    "email_address": frozenset({"email"}),
    "phone_number": frozenset({"phone"}),
    "account_number": frozenset({"account"}),
}
NAMES = (*sorted(KINDS - {"any_number"}), *sorted(_GROUPS))
"""Every value that ``redact`` may have."""


class UnknownKind(ConfigError):
    """A kind of content that nothing here can find."""


@dataclass(frozen=True, kw_only=True)
class RedactionPolicy:
    """Which kinds are hidden, and whether a mask such as ``[CARD]`` stands in their place."""

    kinds: frozenset[str] = frozenset()
    mode: Mode = "mask"

    def __post_init__(self) -> None:
        if unknown := self.kinds - KINDS:
            raise UnknownKind(f"`{min(unknown)}` is none of {', '.join(sorted(KINDS))}")

    def __bool__(self) -> bool:
        """Whether anything is hidden."""
        return bool(self.kinds)

    @property
    def digits_matter(self) -> bool:
        """Whether a run of digits may turn out to be one of the kinds."""
        return bool(self.kinds - {"spelled", "name"})

    @property
    def letters_matter(self) -> bool:
        """Whether a run of letters may turn out to be one of the kinds."""
        return bool(self.kinds & (LETTER_KINDS | {"iban", "account"}))


def policy_options(policy: RedactionPolicy) -> dict[str, object]:
    """A policy as options of work that is done later."""
    return {"redact": sorted(policy.kinds), "redact_mode": policy.mode} if policy else {}


def policy_of_options(options: Mapping[str, Any]) -> RedactionPolicy:
    """The reverse of ``policy_options``."""
    kinds = frozenset(options.get("redact", ()))
    return RedactionPolicy(kinds=kinds, mode=options.get("redact_mode", "mask"))


def parse_policy(values: Iterable[str], *, mode: Mode = "mask") -> RedactionPolicy:
    """Values of ``redact``, each one name or several with commas; ``false`` hides nothing."""
    kinds: set[str] = set()
    for value in values:
        for name in (part.strip().lower() for part in value.split(",")):
            if name in ("", "false"):
                continue
            found = _GROUPS.get(name) or ({name} if name in KINDS else None)
            if found is None:
                raise UnknownKind(f"`{name[:40]}` is none of {', '.join(NAMES)}")
            kinds |= found
    return RedactionPolicy(kinds=frozenset(kinds), mode=mode)
