"""Which bundle stands behind ``NAME@ALIAS``: read from the ledger, which is the truth (ADR-0004)."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from governance.canonical import tree_digest
from governance.errors import AuricleError, TamperError
from governance.ledger import Event, Ledger
from governance.records import read_record
from pipelines import _paths as paths

AGAIN = "`auricle run --again package`"
"""What brings a machine's own state (ledger, MLflow, bentos) up to the package report."""


PROMOTE_FIRST = "`make demo`, or `auricle run` and `auricle promote`"
"""What gives an alias its first version."""


def open_ledger() -> Ledger:
    """The ledger of this workspace."""
    paths.LEDGER.parent.mkdir(parents=True, exist_ok=True)
    return Ledger(paths.LEDGER, key_dir=paths.KEYS, clock=utc_now)


def utc_now() -> str:
    """The present time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def promotions(name: str, alias: str) -> list[Event]:
    """Every promotion of ``name`` to ``alias``, oldest first; the last one stands."""
    if not paths.LEDGER.exists():
        return []
    return [
        event
        for event in open_ledger().events("promote")
        if event.body["model"] == name and event.body["alias"] == alias
    ]


def promoted_aliases() -> list[str]:
    """Every ``MODEL@ALIAS`` that some version was ever promoted to, sorted."""
    if not paths.LEDGER.exists():
        return []
    bodies = [event.body for event in open_ledger().events("promote")]
    return sorted({f"{body['model']}@{body['alias']}" for body in bodies})


def promotion(name: str, alias: str) -> dict[str, Any]:
    """Body of the latest promotion of ``name`` to ``alias``."""
    if found := promotions(name, alias):
        return found[-1].body
    strange = paths.report("package").exists() and not packaged_here()
    raise AuricleError(
        "no version was promoted to this alias",
        item=f"{name}@{alias}",
        mend=f"{AGAIN}, then `auricle promote`" if strange else PROMOTE_FIRST,
    )


def packaged() -> dict[str, dict[str, Any]]:
    """Variant -> the ledger event that the package report states; empty where there is no report."""
    path = paths.report("package")
    return dict(read_record(path).figures.get("events", {})) if path.exists() else {}


def newest_packages() -> dict[int, dict[str, Any]]:
    """Version -> the ledger's newest word on it."""
    return {int(event.body["version"]): event.body for event in open_ledger().events("package")}


def packaged_here() -> bool:
    """Whether this machine's ledger, MLflow store and bentos hold what the package report states.

    They do not in a fresh clone after `dvc pull`: they are a machine's own and never travel. The
    stage itself is up to date there, so only forcing it (``AGAIN``) makes them.
    """
    stated = packaged()
    known = newest_packages() if paths.LEDGER.exists() else {}
    return bool(stated) and all(
        known.get(body["version"]) == body and Path(body["bundle"]).exists() and has_bento(body)
        for body in stated.values()
    )


def has_bento(body: dict[str, Any]) -> bool:
    """Whether the bento that ``body`` names, if it names one, is in this machine's store."""
    store = paths.BENTO_ROOT / "home" / "bentos"
    return not body["bento"] or store.joinpath(*body["bento"].split(":")).is_dir()


def bundle_of(body: dict[str, Any]) -> Path:
    """The bundle of a packaged or promoted version: these very bytes, or an error.

    Where the registry's copy is gone, equal bytes of the pipeline's own output do as well.
    """
    folder, expected = Path(body["bundle"]), body["bundle_digest"]
    if folder.exists():
        if (found := tree_digest(folder)) != expected:
            raise TamperError(
                f"holds {found}, but the ledger names {expected} for version {body['version']}",
                item=str(folder),
                mend=f"restore it from a backup, or move it aside and {AGAIN}",
            )
        return folder
    own = paths.MODELS / str(body["variant"])
    if own.exists() and tree_digest(own) == expected:
        return own
    raise AuricleError(
        f"the bundle of version {body['version']} is gone from this machine",
        item=str(folder),
        mend=f"restore it from a backup; where {own} still is that version, {AGAIN}",
    )


def resolve(model: str) -> Path:
    """Bundle folder of ``NAME@ALIAS``, or ``model`` itself when it is a bundle folder."""
    if "@" in model:
        return bundle_of(promotion(*model.split("@", 1)))
    folder = Path(model)
    if (folder / "bundle.json").exists():
        return folder
    raise AuricleError(
        "neither NAME@ALIAS nor a folder with bundle.json",
        item=model,
        mend="for example auricle@champion, or data/models/fp32",
    )


def version_of(model: str) -> str:
    """The registered version behind ``NAME@ALIAS``; empty for a bundle folder."""
    return str(promotion(*model.split("@", 1))["version"]) if "@" in model else ""
