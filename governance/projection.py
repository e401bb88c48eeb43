"""MLflow's aliases as a projection of the ledger: what they should be, and where they differ."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from governance.ledger import Event


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An alias that is not where the ledger says."""

    model: str
    alias: str
    ledger: int | None  # version; None: the ledger knows no promotion
    registry: int | None  # version; None: MLflow has no such alias

    def __str__(self) -> str:
        """What happened and the mend."""
        name = f"{self.model}@{self.alias}"
        if self.ledger is None:
            return f"{name}: set to version {self.registry} by hand, without a ledger event"
        if self.registry is None:
            return f"{name}: deleted in MLflow; the ledger says version {self.ledger}"
        return (
            f"{name}: moved to version {self.registry} by hand; the ledger says "
            f"version {self.ledger}"
        )


def projected_aliases(events: Iterable[Event], model: str) -> dict[str, int]:
    """Alias -> version after all ``promote`` events of ``model``."""
    aliases: dict[str, int] = {}
    for event in events:
        if event.kind == "promote" and event.body["model"] == model:
            aliases[event.body["alias"]] = int(event.body["version"])
    return aliases


def differences(
    events: Iterable[Event], model: str, actual: Mapping[str, int]
) -> list[Difference]:
    """Every alias of ``model`` on which the ledger and MLflow disagree."""
    wanted = projected_aliases(events, model)
    return [
        Difference(
            model=model, alias=alias, ledger=wanted.get(alias), registry=actual.get(alias)
        )
        for alias in sorted({*wanted, *actual})
        if wanted.get(alias) != actual.get(alias)
    ]
