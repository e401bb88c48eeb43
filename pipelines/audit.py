"""Operation ``audit``: verify the ledger and that MLflow's aliases are where it says."""

import argparse
import json
import sys
from dataclasses import asdict

from governance.ledger import VerifyReport
from governance.projection import Difference, differences
from pipelines import _paths as paths
from pipelines._champion import open_ledger


def verify(args: argparse.Namespace) -> int:
    """Entry of ``auricle audit verify``: exit status 2 when something does not match."""
    report = check_ledger()
    drift = alias_differences() if report.ok else []  # a ledger that lies says nothing on aliases
    if args.json:
        names = [str(item) for item in drift]
        sys.stdout.write(json.dumps(asdict(report) | {"aliases": names}) + "\n")
    else:
        _print(report, drift)
    return 0 if report.ok and not drift else 2


def _print(report: VerifyReport, drift: list[Difference]) -> None:
    if report.ok:
        sys.stdout.write(
            f"ledger: {report.events} events, chain and {report.checkpoints} signed checkpoints match; "
            f"{report.unanchored_tail} newest events are not covered by a checkpoint yet\n"
        )
    else:
        where = "" if report.first_bad is None else f"first bad event {report.first_bad}: "
        sys.stdout.write(
            f"ledger: TAMPERED, {where}{report.reason}. Mend: restore {paths.LEDGER} from backup\n"
        )
    for item in drift:
        again = f"auricle promote --version {item.expected} --alias {item.alias}"
        sys.stdout.write(f"alias: {item}. Mend: {again if item.expected else item.mend}\n")
    if report.ok and not drift:
        sys.stdout.write("aliases: MLflow agrees with the ledger\n")


def list_events(args: argparse.Namespace) -> int:
    """Entry of ``auricle audit list``."""
    for event in open_ledger().events():
        if args.json:
            sys.stdout.write(json.dumps(asdict(event)) + "\n")
        else:
            body = event.body
            what = " ".join(
                f"{key}={body[key]}"
                for key in (
                    "model",
                    "version",
                    "variant",
                    "alias",
                    "passed",
                    "rollback_from",
                    "reason",
                )
                if key in body
            )
            sys.stdout.write(f"{event.seq:5} {event.at} {event.actor:10} {event.kind:8} {what}\n")
    return 0


def check_ledger() -> VerifyReport:
    """Verify the ledger of this workspace."""
    return open_ledger().verify()


def alias_differences() -> list[Difference]:
    """Where MLflow's aliases differ from the ledger; nothing without an MLflow store."""
    if not paths.MLFLOW_DB.exists():
        return []
    from governance.registry import Registry

    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    actual = registry.aliases(paths.MODEL_NAME)
    return differences(open_ledger().events(), paths.MODEL_NAME, actual)


def champion_line() -> str:
    """One line about the champion, for ``doctor``; without one the error that any command gives."""
    from pipelines._champion import promotion

    body = promotion(paths.MODEL_NAME, "champion")
    return f"{body['model']}@champion is version {body['version']} ({body['variant']}), {body['domain']}"
