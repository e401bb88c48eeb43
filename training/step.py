"""One optimiser step's worth of arithmetic, without any framework around it."""

from typing import Any

import torch

from training.config import TrainConfig
from training.dataset import Batch
from training.draws import seed_for
from training.loss import Loss, combine, ctc
from training.model import AcousticModel
from training.optimizer import Muon

Tensor = Any


def batch_loss(model: AcousticModel, batch: Batch, config: TrainConfig) -> Loss:
    """Loss of a batch in the mode that the batch drew; dropout is seeded by the step."""
    torch.manual_seed(seed_for(config.seed, "dropout", batch.step))
    chunk = batch.chunk_frames
    encoded = model.encoder(batch.x_BTF, batch.len_B, chunk, config.model.left_chunks(chunk))

    def score(x_BTD: Tensor) -> Tensor:
        logp_BTV = model.log_probs(x_BTD)
        return ctc(logp_BTV, encoded.len_B, batch.tokens_N, batch.token_len_B, batch.spoken_B2)

    middle_BTD = encoded.middle_BTD
    middle = score(middle_BTD) if middle_BTD is not None and config.middle_weight else None
    return combine(score(encoded.final_BTD), middle, config.middle_weight)


def make_optimizer(model: AcousticModel, config: TrainConfig) -> Muon:
    """Muon for the matrices between layers; AdamW for vectors and for both ends of the network."""
    ends = {id(model.encoder.subsampling.first.weight), id(model.head.weight)}
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.ndim > 1 and id(p) not in ends]
    others = [p for p in parameters if p.ndim <= 1 or id(p) in ends]
    return Muon(matrices, others, lr=config.learning_rate, weight_decay=config.weight_decay)


class Average:
    """Exponential moving average of the weights; short at first, ``ema_steps`` long later."""

    def __init__(self, model: AcousticModel, horizon_steps: int) -> None:
        self._horizon_steps = horizon_steps
        self._weights = [p.detach().clone() for p in model.parameters()]
        self._names = [name for name, _ in model.named_parameters()]

    @torch.no_grad()
    def update(self, model: AcousticModel, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        share = max(1.0 / self._horizon_steps, 9.0 / (step + 9.0))
        weights = [p.detach() for p in model.parameters()]
        if self._weights[0].device != weights[0].device:  # the trainer has moved the model
            self._weights = [w.to(p.device) for w, p in zip(self._weights, weights, strict=True)]
        torch._foreach_lerp_(self._weights, weights, share)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return {name: weight.cpu() for name, weight in zip(self._names, self._weights, strict=True)}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from saved weights."""
        for name, weight in zip(self._names, self._weights, strict=True):
            weight.copy_(state[name])
