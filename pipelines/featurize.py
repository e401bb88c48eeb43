"""Stage ``featurize``: log-mel of every utterance from the content-addressed cache, in partitions."""

from data.manifest import read_manifest
from features.archive import extract
from features.spec import FeatureSpec
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import FeaturizeParams
from pipelines._stage import StageRun, progress_line, run_stage


def main() -> None:
    """Compute what the cache does not hold."""
    run_stage(
        "featurize",
        _body,
        inputs={"manifest": paths.SPLIT, "shards": paths.SHARDS},
        outputs={"features": paths.FEATURES},
    )


def _body(run: StageRun) -> None:
    params = load("featurize", FeaturizeParams)
    spec = FeatureSpec()
    report = extract(
        read_manifest(paths.SPLIT),
        paths.SHARDS,
        spec,
        paths.FEATURE_CACHE,
        paths.FEATURES,
        speeds=params.speeds,
        workers=params.workers,
        partition_max_mb=params.partition_mb,
        progress=progress_line("recordings computed"),
    )
    run.parameters = {"speeds": list(params.speeds), "feature_spec": spec.to_json()}
    run.figures = {
        "fingerprint": spec.fingerprint(),
        "computed": report.computed,
        "reused": report.reused,
        "frames": report.frames,
        "seconds": report.seconds,
        "partitions": report.partitions,
        "index_digest": report.index_digest,
    }
    print(f"  computed {report.computed}, reused {report.reused}")


if __name__ == "__main__":
    main()
