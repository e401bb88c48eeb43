"""A tiny acoustic model with random weights, really exported, once per test process."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from features.bundle import Training
from features.decode import DecoderConfig
from features.norm import NormStats
from features.spec import FeatureSpec
from features.tokens import TokenTable
from training.checkpoint import Checkpoint, save_checkpoint
from training.config import AugmentConfig, ModelConfig, TrainConfig
from training.export import ExportReport, ExportRequest, export_checkpoint
from training.model import AcousticModel

TABLE = TokenTable.from_alphabet("abcdefghijklmnopqrstuvwxyz' ")
CHUNK_FRAMES = 16
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d)


def tiny_model() -> AcousticModel:
    """Two layers in no special state: what starts as zero (branches, biases) is set to noise, and
    logits are stretched, so that outputs are as decided as a trained model's."""
    torch.manual_seed(5)
    model = AcousticModel(
        ModelConfig(
            vocab_size=TABLE.size, d_model=32, layers=2, heads=2, left_frames=32, middle_layer=1
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.head.weight.mul_(4.0)
    return model.eval()


def layer_names(*kinds: type[torch.nn.Module]) -> list[str]:
    """The tiny model's layers of these kinds."""
    return [name for name, module in tiny_model().named_modules() if isinstance(module, kinds)]


def tiny_norm() -> NormStats:
    """Neutral statistics."""
    return NormStats(
        mean_F=np.full(80, 0.25, np.float32), std_F=np.ones(80, np.float32), frames=100
    )


def recordings(count: int, *, seed: int, longest: int = 260) -> list[NDArray[np.float32]]:
    """Normalised features that wander like speech does, of unequal lengths."""
    rng = np.random.default_rng(seed)
    made = []
    for frames in rng.integers(30, longest, size=count):
        drift_T1 = np.sin(np.arange(frames) / rng.uniform(5, 20))[:, None]
        made.append((drift_T1 + rng.standard_normal((frames, 80))).astype(np.float32))
    return made


@cache
def exported() -> tuple[Path, ExportReport]:
    """The fp32 bundle of the tiny model, from a checkpoint as training writes it; read only."""
    folder = Path(tempfile.mkdtemp(prefix="auricle-export-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model = tiny_model()
    checkpoint = Checkpoint(
        step=7,
        config=TrainConfig(model=model.config, augment=AugmentConfig()),
        model=model.state_dict(),
        facts={"tokens": TABLE.to_text(), "norm": tiny_norm().to_json()},
    )
    save_checkpoint(folder / "model.pt", checkpoint)
    report = export_checkpoint(folder / "model.pt", folder / "fp32", REQUEST, seed=3)
    return folder / "fp32", report


REQUEST = ExportRequest(
    name="tiny",
    domain="noise",
    normaliser="en-1",
    spec=FeatureSpec(),
    decoder=DecoderConfig(kind="greedy"),
    trained=Training(run_id="run", git_commit="commit", steps=0),
)
