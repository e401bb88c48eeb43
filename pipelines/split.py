"""Stage ``split``: a given split wins, otherwise speakers are dealt by hash; adding moves nobody."""

from collections import Counter

from data.manifest import read_manifest, write_manifest
from data.split import assign, empty_splits, leaks
from governance.errors import AuricleError
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import SplitParams
from pipelines._stage import StageRun, run_stage


def main() -> None:
    """Fill the split column."""
    run_stage(
        "split", _body, inputs={"accepted": paths.ACCEPTED}, outputs={"manifest": paths.SPLIT}
    )


def _body(run: StageRun) -> None:
    params = load("split", SplitParams)
    rows = assign(
        read_manifest(paths.ACCEPTED),
        dev_percent=params.dev_percent,
        test_percent=params.test_percent,
        salt=params.salt,
    )
    if empty := empty_splits(rows):
        raise AuricleError(
            f"nothing is left for {', '.join(empty)}",
            item=str(paths.ACCEPTED),
            mend="bring more speakers, or raise split.dev_percent and split.test_percent",
        )
    write_manifest(paths.SPLIT, rows)
    speakers = {row.split: set[str]() for row in rows}
    for row in rows:
        speakers[row.split].add(row.speaker)
    run.figures = {
        "utterances": dict(Counter(row.split for row in rows)),
        "minutes": {
            split: round(sum(row.duration_s for row in rows if row.split == split) / 60, 2)
            for split in speakers
        },
        "speakers": {split: len(names) for split, names in speakers.items()},
        "speaker_leakage": len(leaks(rows)),
    }


if __name__ == "__main__":
    main()
