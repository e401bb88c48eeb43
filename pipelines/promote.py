"""Operation ``promote``: move an alias when the gates passed, ledger first, MLflow after.

What is promoted is what the last ``package`` states, and only where the ledger's newest word says
the same. The one other way is back: to a version that stood behind the alias before.
"""

import argparse
import getpass
import json
import sys
from typing import Any, NoReturn

from governance.errors import AuricleError, GateRefused
from governance.ledger import Event
from pipelines import _paths as paths
from pipelines._champion import (
    AGAIN,
    bundle_of,
    has_bento,
    newest_packages,
    open_ledger,
    packaged,
    promotions,
)

_PROMOTED = (
    "model",
    "version",
    "variant",
    "bundle",
    "bundle_digest",
    "bento",
    "run_id",
    "domain",
    "records",
    "policy",
)
"""What a promotion takes over from the package event."""


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle promote``."""
    actor = args.actor or getpass.getuser()
    if args.version is None:
        event = promote_newest(alias=args.alias, actor=actor)
    else:
        event = promote_version(args.version, alias=args.alias, actor=actor, reason=args.reason)
    if args.json:
        sys.stdout.write(json.dumps(event) + "\n")
    else:
        sys.stdout.write(
            f"{event['model']}@{event['alias']} is version {event['version']} ({event['variant']})\n"
        )
    return 0


def promote_newest(*, alias: str = "champion", actor: str) -> dict[str, Any]:
    """Promote what the last ``package`` chose; a version that stands there already is left alone."""
    stated = _stated()
    chosen = next((body for body in stated.values() if body["chosen"]), None)
    if chosen is None:
        _refuse(stated["fp32"])
    standing = promotions(chosen["model"], alias)
    if standing and standing[-1].body.get("rollback_from") == chosen["version"]:
        raise GateRefused(
            f"version {standing[-1].body['version']} was put back in its place",
            item=f"{chosen['model']} version {chosen['version']}",
            mend=f"`auricle promote --version {chosen['version']}` if it shall stand there again",
        )
    return _promote(chosen, standing, alias, actor)


def promote_version(version: int, *, alias: str, actor: str, reason: str = "") -> dict[str, Any]:
    """Promote a version of the last ``package``, or return to one that stood there before."""
    known = newest_packages().get(version)
    if known is None:
        raise AuricleError(
            "the ledger knows no such version", item=str(version), mend="`auricle audit list`"
        )
    standing = promotions(known["model"], alias)
    before = [event for event in standing if event.body["version"] == version]
    is_stated = known in packaged().values()
    if before and not (is_stated and known["passed"] and _is_fresh(known, standing, alias)):
        return _return_to(before[-1], standing[-1], actor, reason)
    if not is_stated and version not in {body["version"] for body in _stated().values()}:
        raise AuricleError(
            f"the last run did not package it, and it never stood behind '{alias}'",
            item=f"{known['model']} version {version}",
            mend="check out its commit and `auricle run`, which judges it anew",
        )
    return _promote(known, standing, alias, actor)


def _stated() -> dict[str, dict[str, Any]]:
    """What the package report states, where the ledger's newest word on each version is the same.

    They part in a fresh clone, and where an older report was checked out: the present verdict is
    the report's, and a promotion on any other would be a promotion on yesterday's policy.
    """
    path, known = paths.report("package"), newest_packages()  # an edited ledger is named first
    if not path.exists():
        raise AuricleError("nothing was packaged yet", item="ledger", mend="`auricle run`")
    stated = packaged()
    for body in stated.values():
        if (other := known.get(body["version"])) != body:
            why = "does not know" if other is None else "says otherwise about"
            raise AuricleError(
                f"this machine's ledger {why} version {body['version']}", item=str(path), mend=AGAIN
            )
    if not stated:
        raise AuricleError("an older release wrote it", item=str(path), mend=AGAIN)
    return stated


def _promote(
    package: dict[str, Any], standing: list[Event], alias: str, actor: str
) -> dict[str, Any]:
    """Append the event, sign a checkpoint, then project onto MLflow."""
    if not package["passed"]:
        _refuse(package)
    if not package["bento"]:
        raise AuricleError(
            "this version has no bento: another variant was chosen",
            item=f"{package['model']} version {package['version']} ({package['variant']})",
            mend="promote the chosen version, or change the gates",
        )
    body = {key: package[key] for key in _PROMOTED} | {"alias": alias}
    now = standing[-1].body if standing else {}
    if any(now.get(key) != value for key, value in body.items()):
        if not _is_fresh(package, standing, alias):
            raise GateRefused(
                f"the verdict compared with version {package['compared_with']}, but version "
                f"{now['version']} stands there now",
                item=f"{package['model']} version {package['version']}",
                mend="`auricle run --again gate`, which compares anew, then promote",
            )
        _require_here(body)
        _append(body, actor)
    project(body["model"])
    return body


def _return_to(event: Event, standing: Event, actor: str, reason: str) -> dict[str, Any]:
    """Put an alias back to what stood there before; nothing is judged, it was judged then."""
    body, now = {key: event.body.get(key) for key in (*_PROMOTED, "alias")}, standing.body
    if (now["version"], now["bundle_digest"]) != (body["version"], body["bundle_digest"]):
        _require_here(body)
        body["rollback_from"] = now["version"]
        body["reason"] = reason or f"back to version {body['version']}, promoted at {event.at}"
        _append(body, actor)
    project(str(body["model"]))
    return body


def _append(body: dict[str, Any], actor: str) -> None:
    ledger = open_ledger()
    ledger.append("promote", body, actor=actor)
    ledger.checkpoint()


def _require_here(body: dict[str, Any]) -> None:
    """Nobody is sent to a version that this machine cannot serve."""
    bundle_of(body)
    if not has_bento(body):
        raise AuricleError(
            "its bento is not on this machine",
            item=f"{body['model']} version {body['version']}: {body['bento']}",
            mend=AGAIN,
        )


def _is_fresh(package: dict[str, Any], standing: list[Event], alias: str) -> bool:
    """Whether the verdict compared with what stands there now; only the judged alias has one."""
    if not standing or alias != package["judged_alias"]:
        return True
    now = standing[-1].body
    return bool(
        now["version"] == package["compared_with"]
        or now["bundle_digest"] == package["bundle_digest"]
    )


def project(model: str) -> None:
    """Set MLflow's aliases to what the ledger says."""
    from governance.projection import projected_aliases
    from governance.registry import Registry

    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    actual = registry.aliases(model)
    wanted = projected_aliases(open_ledger().events(), model)
    for alias, version in wanted.items():
        if actual.get(alias) != version:
            registry.set_alias(model, alias, version)


def _refuse(package: dict[str, Any]) -> NoReturn:
    reasons = "; ".join(package["refusals"]) or "no variant passed"
    raise GateRefused(
        f"the gates refused: {reasons}",
        item=f"{package['model']} version {package['version']} ({package['variant']})",
        mend=f"read {paths.report('gate')}; train a better model, or change the policy with a reason",
    )
