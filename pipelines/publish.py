"""Stage ``publish``: features into Feast, a point-in-time training frame out, priors for serving."""

import shutil

from data.manifest import read_manifest
from features.archive import FeatureArchive
from features.history import prior_rows, utterance_rows
from features.store_client import (
    SERVING_VIEWS,
    TRAINING_VIEWS,
    project_view,
    publish,
    services,
    training_frame,
)
from features.training_rows import write_rows
from governance.errors import ConfigError
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import PublishParams
from pipelines._stage import StageRun, run_stage, say


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
    require_services(params)
    archive = FeatureArchive(paths.FEATURES)
    rows = utterance_rows(read_manifest(paths.SPLIT), archive)
    # Serving may know a speaker only from what training may know: dev and test stay strangers.
    priors = prior_rows([row for row in rows if row.split == "train"], archive)
    for folder in (paths.FEAST, paths.FRAMES, paths.PRIORS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    say(f"{len(rows)} utterances and {len(priors)} priors into Feast")
    report = publish(rows, priors, paths.FEAST.resolve())
    say(f"the point-in-time training frame ({params.training_service})")
    frame = training_frame(rows, params.training_service, data_dir=paths.FEAST.resolve())
    write_rows(paths.FRAMES / "training.parquet", frame)
    speakers = sorted({(row.speaker, row.channel) for row in priors})
    say(f"priors of {len(speakers)} speakers for serving ({params.serving_service})")
    digest = project_view(
        speakers,
        paths.PRIOR_VIEW,
        data_dir=paths.FEAST.resolve(),
        service=params.serving_service,
    )
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


def require_services(params: PublishParams) -> None:
    """Before any work: both services are defined, and hold the views that they are asked for."""
    defined = services()
    for key, needed in (("training_service", TRAINING_VIEWS), ("serving_service", SERVING_VIEWS)):
        name = getattr(params, key)
        if defined.get(name) != needed:
            fitting = sorted(known for known, views in defined.items() if views == needed)
            raise ConfigError(
                f"no feature service {name!r} of {' and '.join(sorted(needed))} is defined",
                item=f"params.yaml: publish.{key}",
                mend=f"choose {' or '.join(fitting)}, or define it in features/store/definitions.py",
            )


if __name__ == "__main__":
    main()
