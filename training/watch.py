"""What happens between steps: averaging, curves, dev scores, checkpoints, the time limit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl

from training.checkpoint import Checkpoint, save_checkpoint
from training.config import TrainConfig
from training.dataset import Batch
from training.dev import DevSet
from training.module import CtcModule
from training.schedule import learning_rate
from training.step import Average

CURVE_EVERY_STEPS = 20


class MetricsLogger(Protocol):
    """The part of a Lightning logger that training uses, for example of `MLFlowLogger`."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Record named numbers at a step."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, for whoever shows it."""

    step: int  # steps done
    steps: int  # steps in all
    loss: float  # of this step, per label
    dev_wer: float | None  # latest, in 0..
    minutes: float  # spent so far, before a resume included


@dataclass(kw_only=True)
class History:
    """Curves and counters of a run; survives a resume."""

    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    minutes: float = 0.0
    infeasible: int = 0  # rows whose reference did not fit their frames
    rows: int = 0

    def add(self, step: int, **values: float) -> None:
        """One point on each named curve."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value))

    def latest(self, name: str) -> float | None:
        """Last value of a curve."""
        points = self.curves.get(name)
        return points[-1][1] if points else None

    def to_json(self) -> dict[str, Any]:
        """Ready for a checkpoint."""
        return {**vars(self), "curves": {k: [list(p) for p in v] for k, v in self.curves.items()}}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "History":
        """Read what `to_json` gave."""
        curves = {k: [(int(s), float(v)) for s, v in p] for k, p in document["curves"].items()}
        return cls(**{**document, "curves": curves})


@dataclass(kw_only=True, eq=False)
class Watch(pl.Callback):
    """The one callback of a run."""

    config: TrainConfig
    average: Average
    history: History
    dev: DevSet
    facts: dict[str, Any]
    resume_path: Path | None  # None writes no resume checkpoints
    clock: Callable[[], float]
    limit_minutes: float | None = None
    until_faultless: bool = False  # a word error rate of 0 ends the run
    logger: MetricsLogger | None = None
    progress: Callable[[Progress], None] | None = None
    step: int = 0  # steps done
    _started: float = 0.0
    _minutes_before: float = 0.0

    def on_train_start(self, trainer: Any, pl_module: CtcModule) -> None:
        """Start the clock."""
        self._started = self.clock()
        self._minutes_before = self.history.minutes

    def on_train_batch_end(
        self, trainer: Any, pl_module: CtcModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Everything that follows an optimiser step."""
        self.step = batch.step + 1
        self.average.update(pl_module.model, self.step)
        history, last = self.history, self.step == self.config.steps
        history.minutes = self._minutes_before + (self.clock() - self._started) / 60
        history.infeasible += batch.infeasible
        history.rows += len(batch.len_B)
        if self.step % CURVE_EVERY_STEPS == 0 or last:
            self._curve_point(pl_module)
        if self.dev and self.step % self.config.dev_every_steps == 0 and not last:
            self._log(dev_wer=(wer := self.dev.word_error_rate(pl_module.model)))
            if self.until_faultless and wer == 0:
                trainer.should_stop = True
        if self.step % self.config.checkpoint_every_steps == 0 and not last:
            self.save(pl_module)
        if self.limit_minutes is not None and history.minutes >= self.limit_minutes:
            trainer.should_stop = True
        if self.progress is not None:
            assert pl_module.loss is not None
            self.progress(
                Progress(
                    step=self.step,
                    steps=self.config.steps,
                    loss=float(pl_module.loss.final),
                    dev_wer=history.latest("dev_wer"),
                    minutes=history.minutes,
                )
            )

    def save(self, module: CtcModule) -> None:
        """Write the resume checkpoint."""
        if self.resume_path is None:
            return
        save_checkpoint(
            self.resume_path,
            Checkpoint(
                step=self.step,
                config=self.config,
                model=module.model.state_dict(),
                facts=self.facts,
                history=self.history.to_json(),
                average=self.average.state(),
                optimizer=module.trainer.optimizers[0].state_dict(),
            ),
        )

    def _curve_point(self, module: CtcModule) -> None:
        assert module.loss is not None
        self._log(
            loss=float(module.loss.final),
            middle_loss=float(module.loss.middle),
            learning_rate=learning_rate(self.step - 1, self.config),
        )

    def _log(self, **values: float) -> None:
        self.history.add(self.step, **values)
        if self.logger is not None:
            self.logger.log_metrics(values, self.step)
