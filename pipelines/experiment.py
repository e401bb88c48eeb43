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
_LEARNT = 0.5  # a batch seen again and again must lose at least this share of its loss


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
        f"about {minutes:.1f} minutes on this machine",
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
        progress=None if args.json else step_printer(),
        overfit_one_batch=args.overfit_one_batch,
        limit_minutes=args.limit_minutes,
    )
    _conclude(args, result)
    if args.overfit_one_batch:
        _check_learnt(result)
    return 0


def _config(args: argparse.Namespace) -> TrainConfig:
    config = load("train", TrainConfig)
    if args.limit_minutes is not None and args.limit_minutes <= 0:
        raise AuricleError("must be above 0", item="--limit-minutes", mend="for example 10")
    if args.steps is None:
        return config
    if args.steps < 1:
        raise AuricleError("needs at least one step", item="--steps", mend="for example 200")
    return replace(config, steps=args.steps, warmup_steps=min(config.warmup_steps, args.steps))


def _conclude(args: argparse.Namespace, result: TrainResult) -> None:
    if args.json:
        figures = figures_of(result) | {"checkpoint": str(result.checkpoint)}
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    first, last = _losses(result)
    _say(args, f"loss {first:.3f} -> {last:.3f}, dev WER {result.dev_wer or 'not measured'}")
    _say(args, f"checkpoint {result.checkpoint}")


def _check_learnt(result: TrainResult) -> None:
    first, last = _losses(result)
    if not last <= _LEARNT * first:  # a loss that is no number has not fallen either
        raise AuricleError(
            f"the loss of one batch went from {first:.3f} to {last:.3f} only",
            item="--overfit-one-batch",
            mend="listen whether texts belong to recordings; if they do, --steps N for longer",
        )


def _losses(result: TrainResult) -> tuple[float, float]:
    loss = result.curves.get("loss", [(0, float("nan"))])
    return loss[0][1], loss[-1][1]


def _say(args: argparse.Namespace, text: str) -> None:
    (sys.stderr if args.json else sys.stdout).write(text + "\n")
