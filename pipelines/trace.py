"""Operation ``lineage``: from an alias back to shards, data checks, feature service and commit."""

import argparse
import sys
from pathlib import Path

from governance.errors import AuricleError
from governance.ledger import Event
from governance.lineage import VersionFacts, build_chain, render_text, to_json
from pipelines._champion import PROMOTE_FIRST, bundle_of, promoted_aliases, promotions
from pipelines._records import read_records


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle lineage``: exit status 2 when a link does not hold.

    The chain speaks of digests; where other bytes lie in the bundle's place, that is said too.
    """
    name, _, alias = args.model.partition("@")
    event = _newest_promotion(name, alias or "champion")
    body = event.body
    facts = VersionFacts(
        model=body["model"],
        version=body["version"],
        run_id=body["run_id"],
        bundle_digest=body["bundle_digest"],
        alias=body["alias"],
        variant=body["variant"],
        bento=body["bento"],
        promoted_at=event.at,
        promoted_by=event.actor,
    )
    lineage = build_chain(read_records(Path(body["records"])), facts)
    sys.stdout.write(to_json(lineage) + "\n" if args.json else render_text(lineage))
    if Path(body["bundle"]).exists():
        bundle_of(body)
    return 0 if lineage.intact else 2


def _newest_promotion(name: str, alias: str) -> Event:
    if found := promotions(name, alias):
        return found[-1]
    if known := promoted_aliases():
        raise AuricleError(
            "the ledger knows no such promotion",
            item=f"{name}@{alias}",
            mend=f"one of {', '.join(known)}",
        )
    raise AuricleError(
        "the ledger holds no promotion yet", item=f"{name}@{alias}", mend=PROMOTE_FIRST
    )
