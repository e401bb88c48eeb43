"""Operation ``lineage``: from an alias back to shards, data checks, feature service and commit."""

import argparse
import sys
from pathlib import Path

from governance.errors import AuricleError
from governance.lineage import VersionFacts, build_chain, render_text, to_json
from pipelines._champion import bundle_of, promotions
from pipelines._records import read_records


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle lineage``: exit status 2 when a link does not hold.

    The chain speaks of digests; where other bytes lie in the bundle's place, that is said too.
    """
    name, _, alias = args.model.partition("@")
    found = promotions(name, alias or "champion")
    if not found:
        raise AuricleError(
            "the ledger knows no such promotion", item=args.model, mend="auricle promote"
        )
    event = found[-1]
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
