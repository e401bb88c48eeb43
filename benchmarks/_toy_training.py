"""A small training for kill storms: real code on random features, its steps printed as they end.

python -m benchmarks._toy_training FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.norm import NormStats
from features.tokens import TokenTable
from training.checkpoint import load_checkpoint
from training.config import AugmentConfig, ModelConfig, TrainConfig
from training.dataset import Example
from training.fit import TrainResult, fit
from training.watch import Progress

MELS = 16
TABLE = TokenTable.from_alphabet("abcd ")
STEPS = 60
CONFIG = TrainConfig(
    model=ModelConfig(
        mel_bins=MELS, vocab_size=TABLE.size, d_model=32, layers=2, heads=2, middle_layer=1
    ),
    augment=AugmentConfig(speeds=(0.9, 1.0, 1.1), time_mask_frames=4, mel_mask_bins=4),
    steps=STEPS,
    batch_utterances=6,
    warmup_steps=5,
    ema_steps=10,
    dev_every_steps=15,
    checkpoint_every_steps=3,  # often, so that kills fall into the writing of checkpoints too
    threads=1,
)


class RandomArchive:
    """Features that follow from the name alone."""

    def get(self, utterance_id: str, speed: float = 1.0) -> NDArray[np.float16]:
        """[T, F]."""
        rng = np.random.default_rng(int(utterance_id))
        frames = round(rng.integers(120, 200) / speed)
        return rng.normal(-2.0, 3.0, (frames, MELS)).astype(np.float16)


def examples(count: int, first: int) -> list[Example]:
    """Random spellings."""
    made = []
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        text = " ".join("".join(rng.choice(list("abcd"), size=2)) for _ in range(3))
        made.append(
            Example(
                utterance_id=str(number),
                text=text,
                tokens=tuple(TABLE.encode(text)),
                frames=len(RandomArchive().get(str(number))),
            )
        )
    return made


def train(folder: Path) -> TrainResult:
    """Start or go on; the same arguments always give the same bits."""

    def tell(progress: Progress) -> None:
        print(f"step {progress.step}", flush=True)

    return fit(
        CONFIG,
        archive=RandomArchive(),
        train=examples(30, 0),
        dev=examples(6, 1000),
        stats=NormStats(
            mean_F=np.full(MELS, -2.0, np.float32), std_F=np.full(MELS, 3.0, np.float32), frames=1
        ),
        table=TABLE,
        out_dir=folder / "out",
        state_dir=folder / "state",
        progress=tell,
    )


def same_bits(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same parameters, bit for bit."""
    import torch

    a, b = (load_checkpoint(folder / "out" / "model.pt").model for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
