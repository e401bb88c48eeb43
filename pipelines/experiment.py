"""Operation ``auricle train``: a training that tries things out; the pipeline's outputs stay."""

import argparse
import json
import sys
import time
from dataclasses import replace

from governance.errors import AuricleError
from governance.params import load
from pipelines import _paths as paths
from pipelines.run import reproduce
from pipelines.train import figures_of, load_materials, step_printer
from training.config import TrainConfig
from training.cost import estimate_cost
from training.fit import TrainResult, fit

_LONG_MINUTES = 60.0


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle train``."""
    config = _config(args)
    outcome = reproduce(["tokens", "publish"], quiet=args.json)  # never on yesterday's data
    if outcome.failed:
        return outcome.status
    materials = load_materials()
    cost = estimate_cost(config, materials.archive, materials.train, materials.archive.norm)
    minutes = min(cost.minutes, args.limit_minutes or cost.minutes)
    _say(
        args,
        f"{cost.parameters:,} parameters, {cost.step_s:.2f} s a step, {cost.steps} steps; "
        f"{'at most ' if args.overfit_one_batch else ''}about {minutes:.1f} minutes on this machine",
    )
    if minutes > _LONG_MINUTES and not args.yes:
        raise AuricleError(
            f"this run would take {minutes:.0f} minutes",
            item="train",
            mend="--yes, or --limit-minutes N",
        )
    result = fit(
        config,
        archive=materials.archive,
        train=materials.train,
        dev=materials.dev,
        stats=materials.archive.norm,
        table=materials.table,
        out_dir=paths.STATE / "experiments" / time.strftime("%Y%m%d-%H%M%S"),
        facts=materials.facts,
        progress=None if args.json else step_printer(_judged(args)),
        overfit_one_batch=args.overfit_one_batch,
        limit_minutes=args.limit_minutes,
    )
    _conclude(args, result)
    if args.overfit_one_batch:
        _require_learnt(result)
    return 0


def _judged(args: argparse.Namespace) -> str:
    """What the word error rates of the run are measured on."""
    return "the batch's" if args.overfit_one_batch else "dev"


def _config(args: argparse.Namespace) -> TrainConfig:
    config = load("train", TrainConfig)
    if args.steps is None:
        return config
    return replace(config, steps=args.steps, warmup_steps=min(config.warmup_steps, args.steps))


def _conclude(args: argparse.Namespace, result: TrainResult) -> None:
    if args.json:
        figures = figures_of(result) | {"checkpoint": str(result.checkpoint)}
        if args.overfit_one_batch:
            figures["batch_wer"] = figures.pop("dev_wer")[result.chosen]
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    loss = [value for _, value in result.curves.get("loss", [])]
    fell = f"loss {loss[0]:.3f} -> {loss[-1]:.3f}, " if loss else ""
    wer = f"{result.dev_wer[result.chosen]:.1%}" if result.dev_wer else "not measured"
    _say(args, f"{result.steps} steps, {fell}{_judged(args)} WER {wer}")
    _say(args, f"checkpoint {result.checkpoint}")


def _require_learnt(result: TrainResult) -> None:
    """A batch that is shown again and again must in the end be written down without a mistake."""
    wer = result.dev_wer[result.chosen]
    if wer > 0:
        raise AuricleError(
            f"after {result.steps} steps the model still gets {wer:.1%} of the batch's words wrong; "
            "it must get every one right",
            item="--overfit-one-batch",
            mend="listen whether texts belong to recordings; if they do, --steps N for longer",
        )


def _say(args: argparse.Namespace, text: str) -> None:
    (sys.stderr if args.json else sys.stdout).write(text + "\n")
