"""Operation ``promote``: move an alias when the gates passed, ledger first, MLflow after."""

import argparse
import getpass
import json
import sys
from typing import Any

from governance.errors import AuricleError, GateRefused
from pipelines import _paths as paths
from pipelines._champion import open_ledger


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle promote``."""
    actor = args.actor or getpass.getuser()
    if args.version is None:
        event = promote_newest(alias=args.alias, actor=actor)
    else:
        event = _promote(_package(args.version), args.alias, actor)
    if args.json:
        sys.stdout.write(json.dumps(event) + "\n")
    else:
        sys.stdout.write(
            f"{event['model']}@{event['alias']} is version {event['version']} ({event['variant']})\n"
        )
    return 0


def promote_newest(*, alias: str = "champion", actor: str) -> dict[str, Any]:
    """Promote what the last ``package`` chose; a version that stands there already is left alone."""
    packages = open_ledger().events("package")
    if not packages:
        raise AuricleError("nothing was packaged yet", item="ledger", mend="`auricle run`")
    chosen = [event.body for event in packages if event.body["chosen"]]
    newest = packages[-1].body["run_id"]
    if not chosen or chosen[-1]["run_id"] != newest:
        _refuse(packages[-1].body)
    return _promote(chosen[-1], alias, actor)


def _package(version: int) -> dict[str, Any]:
    for event in reversed(open_ledger().events("package")):
        if event.body["version"] == version:
            return event.body
    raise AuricleError(
        "the ledger knows no such version", item=str(version), mend="`auricle audit list`"
    )


def _promote(package: dict[str, Any], alias: str, actor: str) -> dict[str, Any]:
    """Append the event, sign a checkpoint, then project onto MLflow."""
    if not package["passed"]:
        _refuse(package)
    if not package["bento"]:
        raise AuricleError(
            "this version has no bento: another variant was chosen",
            item=f"{package['model']} version {package['version']} ({package['variant']})",
            mend="promote the chosen version, or change the gates",
        )
    ledger = open_ledger()
    body = {
        key: package[key]
        for key in (
            "model",
            "version",
            "variant",
            "bundle",
            "bundle_digest",
            "bento",
            "run_id",
            "domain",
            "records",
        )
    } | {"alias": alias}
    standing = [
        event.body
        for event in ledger.events("promote")
        if event.body["model"] == body["model"] and event.body["alias"] == alias
    ]
    if not standing or standing[-1] != body:
        _require_fresh(package, standing[-1]["version"] if standing else None)
        ledger.append("promote", body, actor=actor)
        ledger.checkpoint()
    project(body["model"])
    return body


def _require_fresh(package: dict[str, Any], champion: int | None) -> None:
    """The verdict must have compared with the version that stands there now."""
    if champion not in (package["compared_with"], package["version"]):
        raise GateRefused(
            f"the verdict compared with version {package['compared_with']}, but version {champion} "
            "stands there now",
            item=f"{package['model']} version {package['version']}",
            mend="`auricle run --again gate`, which compares anew, then promote",
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


def _refuse(package: dict[str, Any]) -> None:
    reasons = "; ".join(package["refusals"]) or "no variant passed"
    raise GateRefused(
        f"the gates refused: {reasons}",
        item=f"{package['model']} version {package['version']} ({package['variant']})",
        mend=f"read {paths.report('gate')}; train a better model, or change the policy with a reason",
    )
