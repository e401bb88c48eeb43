"""Checkpoints: one file, written whole or not at all, read without executing anything.

A resume checkpoint holds all that the next step depends on; since every random draw is a function
of the step number, a run killed at any moment continues to the same bits (at equal torch version,
thread count and CPU capability, which are recorded).
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from governance.canonical import canonical_json, write_atomic
from governance.errors import ConfigError
from governance.params import load_text
from training.config import TrainConfig
from training.model import AcousticModel

CHECKPOINT_SCHEMA = 1
_AGAIN = "run train again"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights and what they came from."""

    step: int  # optimiser steps done
    config: TrainConfig  # of the run
    model: dict[str, Any]  # weights by name: the chosen ones in a final checkpoint
    facts: dict[str, Any] = field(default_factory=dict)  # JSON: digests, norm, environment
    history: dict[str, Any] = field(default_factory=dict)  # JSON: curves and counters so far
    average: dict[str, Any] | None = None  # running average of the weights (resume)
    optimizer: dict[str, Any] | None = None  # optimiser state (resume)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: temporary file, fsync, rename."""
    content = {
        "checkpoint_schema": CHECKPOINT_SCHEMA,
        "step": checkpoint.step,
        "config": config_json(checkpoint.config),
        "facts": canonical_json(checkpoint.facts),
        "history": canonical_json(checkpoint.history),
        "model": checkpoint.model,
        "average": checkpoint.average,
        "optimizer": checkpoint.optimizer,
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    write_atomic(path, stream.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint as data only (``weights_only``), onto the CPU."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError("checkpoint not found", item=str(path), mend=_AGAIN) from None
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise ConfigError(
            f"not a readable checkpoint ({type(error).__name__})", item=str(path), mend=_AGAIN
        ) from error
    schema = content.get("checkpoint_schema") if isinstance(content, dict) else None
    if schema != CHECKPOINT_SCHEMA:
        raise ConfigError(
            f"checkpoint schema {schema!r}, expected {CHECKPOINT_SCHEMA}",
            item=str(path),
            mend=_AGAIN,
        )
    return Checkpoint(
        step=content["step"],
        config=config_from_json(content["config"], item=str(path)),
        facts=json.loads(content["facts"]),
        history=json.loads(content["history"]),
        model=content["model"],
        average=content["average"],
        optimizer=content["optimizer"],
    )


def load_model(path: Path) -> tuple[AcousticModel, Checkpoint]:
    """The model of a checkpoint, in evaluation mode, and the checkpoint."""
    checkpoint = load_checkpoint(path)
    model = AcousticModel(checkpoint.config.model)
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise ConfigError(
            "the weights do not fit the model that the checkpoint describes",
            item=str(path),
            mend=_AGAIN,
        ) from error
    return model.eval(), checkpoint


def config_json(config: TrainConfig) -> str:
    """Canonical JSON of a configuration; equal text means an equal run."""
    return canonical_json(asdict(config))


def config_from_json(text: str, *, item: str = "checkpoint") -> TrainConfig:
    """Read what `config_json` wrote, as strictly as ``params.yaml``."""
    return load_text(f'{{"train": {text}}}', "train", TrainConfig, item=item)


def continues(checkpoint: Checkpoint, config: TrainConfig, facts: Mapping[str, Any]) -> bool:
    """Whether a run of ``config`` on the data of ``facts`` may go on from this checkpoint."""
    return (
        checkpoint.optimizer is not None
        and checkpoint.average is not None
        and config_json(checkpoint.config) == config_json(config)
        and checkpoint.facts == json.loads(canonical_json(dict(facts)))
    )
