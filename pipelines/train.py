"""Stage ``train``: from the training frame to a checkpoint, tracked by MLflow."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.manifest import read_manifest
from features.archive import FeatureArchive
from features.tokens import TokenTable
from features.training_rows import read_rows
from governance.canonical import digest
from governance.errors import AuricleError
from governance.params import load
from pipelines import _paths as paths
from pipelines._stage import StageRun, path_digest, run_stage
from training.config import TrainConfig
from training.cost import estimate_cost
from training.dataset import Example
from training.fit import TrainResult, fit
from training.watch import Progress

if TYPE_CHECKING:
    from governance.registry import Registry

_PROGRESS_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a run learns from."""

    archive: FeatureArchive
    train: list[Example]
    dev: list[Example]
    table: TokenTable
    facts: dict[str, str]  # digests that decide whether a killed run may go on


def main() -> None:
    """Train, tracked by MLflow."""
    run_stage(
        "train",
        _body,
        inputs={
            "manifest": paths.SPLIT,
            "features": paths.FEATURES,
            "frames": paths.FRAMES,
            "tokens": paths.TOKENS,
        },
        outputs={"checkpoint": paths.CHECKPOINT},
    )


def _body(run: StageRun) -> None:
    config = load("train", TrainConfig)
    materials = load_materials()
    cost = estimate_cost(config, materials.archive, materials.train, materials.archive.norm)
    print(f"  {cost.parameters:,} parameters, {cost.steps} steps, about {cost.minutes:.0f} minutes")
    # A changed statement is another training: its state must not go on from the old code's weights.
    facts = materials.facts | {"code": path_digest(paths.CODE / "train.json")}
    state = paths.RESUME / digest([asdict(config), facts])[7:23]
    registry, run_id = _tracked_run(state, config)
    result = fit(
        config,
        archive=materials.archive,
        train=materials.train,
        dev=materials.dev,
        stats=materials.archive.norm,
        table=materials.table,
        out_dir=paths.CHECKPOINT,
        facts=facts,
        state_dir=state,
        logger=registry.logger(run_id),
        progress=step_printer(),
    )
    registry.log_metrics(run_id, {f"dev_wer.{k}": v for k, v in result.dev_wer.items()})
    registry.finish(run_id)
    shutil.rmtree(state, ignore_errors=True)  # only a killed run goes on; a finished one is done
    run.parameters = asdict(config)
    run.figures = figures_of(result) | {"run_id": run_id, "estimated_minutes": cost.minutes}


def load_materials() -> Materials:
    """The training frame joined with text, in the order of ids."""
    archive = FeatureArchive(paths.FEATURES)
    table = TokenTable.from_file(paths.TOKENS / "tokens.txt")
    text = {row.utterance_id: row.normalised_text for row in read_manifest(paths.SPLIT)}
    examples: dict[str, list[Example]] = {"train": [], "dev": []}
    for row in read_rows(paths.FRAMES / "training.parquet"):
        if row.split in examples:
            examples[row.split].append(
                Example(
                    utterance_id=row.utterance_id,
                    text=text[row.utterance_id],
                    tokens=tuple(table.encode(text[row.utterance_id])),
                    frames=row.frames,
                    prior_mean_F=None if row.prior is None else row.prior.mean_F,
                )
            )
    if not examples["train"]:
        raise AuricleError("the train split is empty", item=str(paths.SPLIT), mend="add a corpus")
    facts = {
        "manifest": path_digest(paths.SPLIT),
        "features": path_digest(paths.FEATURES),
        "frames": path_digest(paths.FRAMES),
        "fingerprint": archive.spec.fingerprint(),
    }
    return Materials(
        archive=archive, train=examples["train"], dev=examples["dev"], table=table, facts=facts
    )


def _tracked_run(state: Path, config: TrainConfig) -> "tuple[Registry, str]":
    """The MLflow run of this training; a killed one is continued, not doubled."""
    from governance.registry import Registry

    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    note = state / "run_id"
    if note.exists() and registry.exists(note.read_text()):
        return registry, note.read_text()
    run_id = registry.start_run(paths.EXPERIMENT, time.strftime("train-%Y%m%d-%H%M%S"), {})
    state.mkdir(parents=True, exist_ok=True)
    note.write_text(run_id)
    registry.log_params(run_id, {"train": asdict(config)})
    # The corpora of the manifest, which the stage depends on: a repeated ingest that changes no row
    # must not train anew.
    corpora = sorted({row.shard.partition("/")[0] for row in read_manifest(paths.SPLIT)})
    for name, path in (("manifest", paths.SPLIT), ("features", paths.FEATURES)):
        registry.log_dataset(
            run_id,
            name=f"{name}: {', '.join(corpora)}",
            digest=path_digest(path),
            source=f"dvc://{path.as_posix()}",
            context="training",
        )
    for corpus in corpora:
        registry.log_dataset(
            run_id,
            name=f"shards: {corpus}",
            digest=path_digest(paths.SHARDS / corpus),
            source=f"dvc://{(paths.SHARDS / corpus).as_posix()}",
            context="source",
        )
    return registry, run_id


def figures_of(result: TrainResult) -> dict[str, Any]:
    """What the record says of a training."""
    return {
        "chosen": result.chosen,
        "steps": result.steps,
        "resumed_at": result.resumed_at,
        "minutes": round(result.minutes, 2),
        "dev_wer": result.dev_wer,
        "infeasible_rows": result.infeasible,
        "rows": result.rows,
        "parameters": result.parameters,
        "environment": result.environment,
        "curves": {name: [list(point) for point in curve] for name, curve in result.curves.items()},
    }


def step_printer(judged: str = "dev") -> Callable[[Progress], None]:
    """Prints a line of progress at most every ten seconds; ``judged`` names what WER is measured on."""
    last_s = 0.0

    def show(progress: Progress) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s < _PROGRESS_EVERY_S and progress.step != progress.steps:
            return
        last_s = now_s
        left = progress.minutes * (progress.steps - progress.step) / max(1, progress.step)
        wer = "" if progress.dev_wer is None else f", {judged} WER {progress.dev_wer:.1%}"
        print(
            f"  step {progress.step}/{progress.steps}, loss {progress.loss:.3f}{wer}, "
            f"about {left:.1f} minutes left",
            flush=True,
        )

    return show


if __name__ == "__main__":
    main()
