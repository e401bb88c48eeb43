"""All records of a pipeline run."""

from pathlib import Path

from governance.records import StageRecord, read_record
from pipelines.code import STAGES


def read_records(folder: Path) -> dict[str, StageRecord]:
    """Stage -> record, for the stages that have run."""
    return {
        stage: read_record(folder / f"{stage}.json")
        for stage in STAGES
        if stage != "package" and (folder / f"{stage}.json").exists()
    }
