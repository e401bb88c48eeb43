"""Run a training: start or resume, watch, choose the weights on dev, write the checkpoint."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from features.norm import NormStats
from features.tokens import TokenTable
from training import machine
from training.checkpoint import Checkpoint, continues, load_checkpoint, save_checkpoint
from training.config import TrainConfig
from training.cost import estimate_cost
from training.dataset import Archive, Example, TrainingData
from training.dev import DevSet
from training.draws import seed_for
from training.model import AcousticModel
from training.prefetch import Prefetcher
from training.step import Average
from training.watch import History, MetricsLogger, Progress, Watch

_RESUME_FILE = "resume.pt"
_MODEL_FILE = "model.pt"
_LOOK_EVERY_STEPS = 20  # at the one batch that is overfitted: as dear as a step


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run gave."""

    checkpoint: Path  # final checkpoint with the chosen weights
    chosen: str  # "average" or "last": what dev preferred
    steps: int  # optimiser steps done
    resumed_at: int  # step that this process began with
    minutes: float  # of training and watching, before a resume included
    curves: dict[str, list[tuple[int, float]]]  # name -> (step, value)
    dev_wer: dict[str, float]  # weights -> greedy WER on dev, full context; empty without dev
    infeasible: int  # rows whose reference did not fit their frames
    rows: int  # rows trained on
    parameters: int  # trainable numbers
    environment: dict[str, Any]  # what bit-equality depends on


def fit(
    config: TrainConfig,
    *,
    archive: Archive,
    train: Sequence[Example],
    dev: Sequence[Example],
    stats: NormStats,
    table: TokenTable,
    out_dir: Path,
    facts: Mapping[str, Any] | None = None,
    state_dir: Path | None = None,
    logger: MetricsLogger | None = None,
    progress: Callable[[Progress], None] | None = None,
    overfit_one_batch: bool = False,
    limit_minutes: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train and write ``out_dir/model.pt``.

    ``facts`` (JSON: digests of data, tokens and feature spec) travel in the checkpoint and decide,
    with ``config``, whether ``state_dir/resume.pt`` continues; None writes no resume checkpoints.
    ``limit_minutes`` shortens the schedule to what fits, by a measurement before the start.
    ``overfit_one_batch`` trains on the first batch alone, as it is, judges on that very batch (it
    stands in ``dev``'s place) and ends as soon as its greedy word error rate is 0.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    resume_path = state_dir / _RESUME_FILE if state_dir else None
    facts = {**(facts or {}), "tokens": table.to_text(), "norm": stats.to_json()}
    if overfit_one_batch:
        look = min(config.dev_every_steps, _LOOK_EVERY_STEPS)
        config = replace(config, full_context_share=1.0, dev_every_steps=look)
    found = _resumable(resume_path, config, facts, limited=limit_minutes is not None)
    if found is not None:
        config = found.config
    elif limit_minutes is not None:
        config = _shorten(config, archive, train, stats, limit_minutes)
    data = TrainingData(archive, train, stats, config, one_batch=overfit_one_batch)
    if overfit_one_batch:
        dev = [train[index] for index in data.sampler.batch(0)]
    torch.manual_seed(seed_for(config.seed, "weights"))
    model = AcousticModel(config.model)
    watch = Watch(
        config=config,
        average=Average(model, config.ema_steps),
        history=History(),
        dev=DevSet(archive, dev, stats, table),
        facts=facts,
        resume_path=resume_path,
        clock=clock,
        limit_minutes=limit_minutes,
        until_faultless=overfit_one_batch,
        logger=logger,
        progress=progress,
    )
    _train(model, data, config, watch, found)
    return _finish(model, watch, config, facts, out_dir, found.step if found else 0)


def _train(
    model: AcousticModel,
    data: TrainingData,
    config: TrainConfig,
    watch: Watch,
    found: Checkpoint | None,
) -> None:
    import pytorch_lightning as pl

    from training.module import CtcModule

    module = CtcModule(model, config)
    if found is not None:
        assert found.average is not None
        model.load_state_dict(found.model)
        watch.average.restore(found.average)
        watch.history = History.from_json(found.history)
        watch.step = found.step
        module.optimizer_state = found.optimizer
    with _quiet():
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            precision=machine.lightning_precision(config.precision),
            max_epochs=1,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if watch.step < config.steps:
            trainer.fit(module, Prefetcher(data, watch.step))


def _finish(
    model: AcousticModel,
    watch: Watch,
    config: TrainConfig,
    facts: dict[str, Any],
    out_dir: Path,
    resumed_at: int,
) -> TrainResult:
    """Dev chooses between the last weights and their running average."""
    model = model.to("cpu")
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    candidates = {"last": last, "average": {**last, **watch.average.state()}}
    dev_wer: dict[str, float] = {}
    if watch.dev:
        for name, weights in candidates.items():
            model.load_state_dict(weights)
            dev_wer[name] = watch.dev.word_error_rate(model)
    chosen = min(dev_wer, key=lambda name: (dev_wer[name], name)) if dev_wer else "last"
    if dev_wer:
        watch.history.add(watch.step, dev_wer=dev_wer[chosen])
    path = out_dir / _MODEL_FILE
    environment = machine.describe(config.precision)
    save_checkpoint(
        path,
        Checkpoint(
            step=watch.step,
            config=config,
            model=candidates[chosen],
            facts={**facts, "environment": environment, "chosen": chosen, "dev_wer": dev_wer},
            history=watch.history.to_json(),
        ),
    )
    return TrainResult(
        checkpoint=path,
        chosen=chosen,
        steps=watch.step,
        resumed_at=resumed_at,
        minutes=watch.history.minutes,
        curves=watch.history.curves,
        dev_wer=dev_wer,
        infeasible=watch.history.infeasible,
        rows=watch.history.rows,
        parameters=model.parameter_count(),
        environment=environment,
    )


def _resumable(
    path: Path | None, config: TrainConfig, facts: Mapping[str, Any], *, limited: bool
) -> Checkpoint | None:
    """The checkpoint to go on from; a time limit may have shortened its schedule."""
    if path is None or not path.exists():
        return None
    found = load_checkpoint(path)
    wanted = replace(config, steps=found.config.steps) if limited else config
    return found if continues(found, wanted, facts) else None


def _shorten(
    config: TrainConfig,
    archive: Archive,
    train: Sequence[Example],
    stats: NormStats,
    limit_minutes: float,
) -> TrainConfig:
    cost = estimate_cost(config, archive, train, stats)
    fitting = max(1, int(limit_minutes * 60 / cost.step_s))
    if fitting >= config.steps:
        return config
    warmup = min(config.warmup_steps, max(1, fitting // 10))
    return replace(config, steps=fitting, warmup_steps=warmup)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice about loaders, loggers and devices does not apply here."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
