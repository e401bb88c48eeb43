"""Stage ``publish``: features into Feast, a point-in-time training frame out, priors for serving."""

import shutil

from data.manifest import read_manifest
from features.archive import FeatureArchive
from features.history import prior_rows, utterance_rows
from features.store_client import project_view, publish, training_frame
from features.training_rows import write_rows
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import PublishParams
from pipelines._stage import StageRun, run_stage


def main() -> None:
    """Publish, join, project."""
    run_stage(
        "publish",
        _body,
        inputs={"manifest": paths.SPLIT, "features": paths.FEATURES},
        outputs={"frames": paths.FRAMES, "priors": paths.PRIORS},
    )


def _body(run: StageRun) -> None:
    params = load("publish", PublishParams)
    archive = FeatureArchive(paths.FEATURES)
    rows = utterance_rows(read_manifest(paths.SPLIT), archive)
    # Serving may know a speaker only from what training may know: dev and test stay strangers.
    priors = prior_rows([row for row in rows if row.split == "train"], archive)
    for folder in (paths.FEAST, paths.FRAMES, paths.PRIORS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    report = publish(rows, priors, paths.FEAST.resolve())
    frame = training_frame(rows, params.training_service, data_dir=paths.FEAST.resolve())
    write_rows(paths.FRAMES / "training.parquet", frame)
    speakers = sorted({(row.speaker, row.channel) for row in priors})
    digest = project_view(speakers, paths.PRIOR_VIEW, data_dir=paths.FEAST.resolve())
    run.parameters = {
        "training_service": params.training_service,
        "serving_service": params.serving_service,
    }
    run.figures = {
        "rows": len(frame),
        "warm_rows": sum(row.prior is not None for row in frame),
        "prior_rows": report.prior_rows,
        "speakers": report.speakers,
        "views": list(report.views),
        "services": list(report.services),
        "prior_view_digest": digest,
    }


if __name__ == "__main__":
    main()
