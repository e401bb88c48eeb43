"""What a run will take here, measured before it starts."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from features.norm import NormStats
from training.config import TrainConfig
from training.dataset import Archive, Example, TrainingData
from training.model import AcousticModel
from training.step import batch_loss, make_optimizer

_WARM_UP_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """A measurement of a few steps, spread over an epoch, and what follows for the run."""

    step_s: float  # mean wall time of a step
    steps: int  # in the run
    minutes: float  # of the whole run, dev scores not counted
    parameters: int  # trainable numbers
    batches_per_epoch: int


def estimate_cost(
    config: TrainConfig,
    archive: Archive,
    train: Sequence[Example],
    stats: NormStats,
    *,
    measured_steps: int = 6,
    clock: Callable[[], float] = time.perf_counter,
) -> CostEstimate:
    """Time steps of a throw-away model on the CPU, with this process' thread count."""
    data = TrainingData(archive, train, stats, config)
    state = torch.get_rng_state()
    model = AcousticModel(config.model)
    optimizer = make_optimizer(model, config)
    seconds = []
    for step in range(_WARM_UP_STEPS + measured_steps):
        begun = clock()
        batch_loss(model, data[step], config).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(clock() - begun)
    torch.set_rng_state(state)
    step_s = statistics.fmean(seconds[_WARM_UP_STEPS:])
    return CostEstimate(
        step_s=step_s,
        steps=config.steps,
        minutes=step_s * config.steps / 60,
        parameters=model.parameter_count(),
        batches_per_epoch=data.sampler.batches_per_epoch,
    )
