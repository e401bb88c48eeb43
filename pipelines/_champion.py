"""Which bundle stands behind ``NAME@ALIAS``: read from the ledger, which is the truth (ADR-0004)."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from governance.errors import AuricleError
from governance.ledger import Ledger
from pipelines import _paths as paths


def open_ledger() -> Ledger:
    """The ledger of this workspace."""
    paths.LEDGER.parent.mkdir(parents=True, exist_ok=True)
    return Ledger(paths.LEDGER, key_dir=paths.KEYS, clock=utc_now)


def utc_now() -> str:
    """The present time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def promotion(name: str, alias: str) -> dict[str, Any]:
    """Body of the latest promotion of ``name`` to ``alias``."""
    if paths.LEDGER.exists():
        for event in reversed(open_ledger().events("promote")):
            if event.body["model"] == name and event.body["alias"] == alias:
                return event.body
    raise AuricleError(
        "no version was promoted to this alias",
        item=f"{name}@{alias}",
        mend="`make demo`, or `auricle run` and `auricle promote`",
    )


def resolve(model: str) -> Path:
    """Bundle folder of ``NAME@ALIAS``, or ``model`` itself when it is a bundle folder."""
    if "@" not in model:
        folder = Path(model)
        if (folder / "bundle.json").exists():
            return folder
        raise AuricleError(
            "neither NAME@ALIAS nor a folder with bundle.json",
            item=model,
            mend="for example auricle@champion, or data/models/fp32",
        )
    name, alias = model.split("@", 1)
    folder = Path(promotion(name, alias)["bundle"])
    if not folder.exists():
        raise AuricleError(
            "the promoted bundle is gone from this machine", item=str(folder), mend="auricle run"
        )
    return folder
