"""What the ledger says the aliases are, and where the registry says otherwise.

The ledger is the truth; MLflow's aliases are a projection of it. An alias that somebody moved or
deleted by hand is named together with the command that mends it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from governance.chain import Event

PROMOTE = "promote"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One alias that is not what the ledger says."""

    model: str
    alias: str
    expected: int | None  # version by the ledger; None: the ledger knows no such alias
    actual: int | None  # version in the registry; None: the alias is not there
    reason: str
    mend: str

    def __str__(self) -> str:
        return f"{self.model}@{self.alias}: {self.reason}"


def projected_aliases(events: Iterable[Event], name: str) -> dict[str, int]:
    """Alias -> version of model ``name`` after all promotions, in the order of the ledger."""
    aliases: dict[str, int] = {}
    for event in events:
        if event.kind == PROMOTE and event.body["model"] == name:
            aliases[str(event.body["alias"])] = int(event.body["version"])
    return aliases


def differences(events: Iterable[Event], name: str, actual: Mapping[str, int]) -> list[Difference]:
    """Where the registry's aliases of ``name`` (alias -> version) depart from the ledger."""
    expected = projected_aliases(events, name)
    return [
        _difference(name, alias, expected.get(alias), actual.get(alias))
        for alias in sorted({*expected, *actual})
        if expected.get(alias) != actual.get(alias)
    ]


def drift(
    ledger_events: Iterable[Event], actual_aliases: Mapping[str, Mapping[str, int]]
) -> list[Difference]:
    """The differences of every model (model -> alias -> version) that either side knows."""
    events = list(ledger_events)
    promoted = {str(event.body["model"]) for event in events if event.kind == PROMOTE}
    return [
        difference
        for name in sorted({*promoted, *actual_aliases})
        for difference in differences(events, name, actual_aliases.get(name, {}))
    ]


def _difference(model: str, alias: str, expected: int | None, actual: int | None) -> Difference:
    if expected is None:
        reason = f"set by hand to version {actual}; the ledger knows no promotion to it"
        mend = f"remove the alias in the registry, or promote version {actual} to '{alias}'"
    elif actual is None:
        reason = f"deleted by hand; the ledger promoted version {expected}"
        mend = f"set the alias to version {expected} again"
    else:
        reason = f"moved by hand to version {actual}; the ledger promoted version {expected}"
        mend = f"set the alias back to version {expected}, or promote version {actual}"
    return Difference(
        model=model, alias=alias, expected=expected, actual=actual, reason=reason, mend=mend
    )
