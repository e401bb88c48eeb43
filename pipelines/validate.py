"""Stage ``validate``: the Great Expectations contract; stops the pipeline or quarantines by id."""

import shutil

from data.contract_rules import ContractConfig
from data.contracts import validate
from data.manifest import read_manifest, write_manifest
from governance.canonical import canonical_json, write_atomic
from governance.errors import AuricleError
from governance.params import load
from pipelines import _paths as paths
from pipelines._stage import StageRun, run_stage


def main() -> None:
    """Judge the manifest."""
    run_stage(
        "validate",
        _body,
        inputs={"manifest": paths.ALL},
        outputs={"accepted": paths.ACCEPTED, "quarantine": paths.QUARANTINE},
    )


def _body(run: StageRun) -> None:
    config = load("validate", ContractConfig)
    rows = read_manifest(paths.ALL)
    shutil.rmtree(paths.DATA_DOCS, ignore_errors=True)
    outcome = validate(rows, config, paths.DATA_DOCS)
    if not outcome.success:
        pages = f"{paths.DATA_DOCS}/index.html shows every rule"
        raise AuricleError(
            outcome.message,
            item=str(paths.ALL),
            mend=f"{outcome.mend}; {pages}" if outcome.mend else pages,
        )
    good = [row for row in rows if row.utterance_id not in outcome.quarantined]
    write_manifest(paths.ACCEPTED, good)
    write_atomic(paths.QUARANTINE, canonical_json(outcome.quarantined) + "\n")
    run.figures = {
        "accepted": len(good),
        "quarantined": len(outcome.quarantined),
        "success": outcome.success,
        "statistics": outcome.statistics,
    }
    for utterance_id, reasons in list(outcome.quarantined.items())[:5]:
        print(f"  quarantined {utterance_id}: {'; '.join(reasons)}")


if __name__ == "__main__":
    main()
