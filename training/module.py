"""The Lightning module: a thin coat around `training.step`."""

from typing import Any

import pytorch_lightning as pl
import torch

from training.config import TrainConfig
from training.dataset import Batch
from training.loss import Loss
from training.model import AcousticModel
from training.schedule import learning_rate
from training.step import batch_loss, make_optimizer

Tensor = Any


class CtcModule(pl.LightningModule):
    """Trains an `AcousticModel`; everything that varies is a function of the batch's step."""

    def __init__(self, model: AcousticModel, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.optimizer_state: dict[str, Any] | None = None  # set to resume
        self.loss: Loss | None = None  # of the latest step, for whoever watches

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set this step's learning rate."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rate(batch.step, self.config)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss to minimise."""
        self.loss = batch_loss(self.model, batch, self.config)
        return self.loss.total

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Plain clipping by norm; Lightning's own refuses fused optimisers under autocast."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)

    def configure_optimizers(self) -> Any:
        """Muon and AdamW, with their state when a run goes on."""
        optimizer = make_optimizer(self.model, self.config)
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
            self.optimizer_state = None
        return optimizer
