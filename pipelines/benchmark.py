"""Stage ``benchmark``: speed, size and memory of each variant, paired on this machine."""

from dataclasses import asdict
from itertools import takewhile

from features.archive import FeatureArchive
from governance.params import load
from pipelines import _paths as paths
from pipelines._evaluation import items_of
from pipelines._params import BenchmarkParams
from pipelines._splits import load_split
from pipelines._stage import SEED, StageRun, progress_line, run_stage
from training.benchmark import measure_variants


def main() -> None:
    """Measure fp32 and int8 in turn on the same recordings."""
    run_stage(
        "benchmark",
        _body,
        inputs={
            "manifest": paths.SPLIT,
            "features": paths.FEATURES,
            "fp32": paths.FP32,
            "int8": paths.INT8,
        },
        outputs={},
    )


def _body(run: StageRun) -> None:
    params = load("benchmark", BenchmarkParams)
    spent_s = 0.0

    def fits(seconds: float) -> bool:
        nonlocal spent_s
        spent_s += seconds
        return spent_s - seconds < params.audio_seconds

    rows = list(takewhile(lambda row: fits(row.duration_s), load_split("dev")))
    items = items_of(FeatureArchive(paths.FEATURES), rows)
    figures = measure_variants(
        {"fp32": paths.FP32, "int8": paths.INT8},
        [item.features_TF for item in items],
        repetitions=params.repetitions,
        seed=SEED,
        progress=progress_line("repetitions"),
    )
    int8 = figures["int8"]
    run.parameters = asdict(params)
    run.figures = {name: asdict(value) for name, value in figures.items()} | {
        # The slower of the two paths decides: a variant serves files and streams alike.
        "int8_speedup": min(int8.file_speedup.point, int8.stream_speedup.point),
    }
    print(
        f"  int8 is {int8.file_speedup.point:.2f}x faster on files, "
        f"{int8.stream_speedup.point:.2f}x on streams"
    )


if __name__ == "__main__":
    main()
