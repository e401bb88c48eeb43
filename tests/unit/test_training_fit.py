"""Runs of a tiny model: it learns, resumes exactly after kill -9, and obeys its limits."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.norm import NormStats
from features.tokens import TokenTable
from governance.errors import ConfigError
from training.checkpoint import load_checkpoint, load_model
from training.config import AugmentConfig, ModelConfig, TrainConfig
from training.cost import estimate_cost
from training.dataset import Example
from training.fit import fit

ROOT = Path(__file__).resolve().parents[2]
MELS = 8
WORDS = ("ba", "da", "bad", "dab")
TABLE = TokenTable.from_alphabet("abd ")


class ToneArchive:
    """Each letter, and the space, is a plateau on a mel band of its own: learnable in seconds."""

    def get(self, utterance_id: str, speed: float = 1.0):
        text, seed = utterance_id.split("-")
        rng = np.random.default_rng(int(seed))
        quiet = np.full((20, MELS), -4.0)
        letters = []
        for letter in text.replace("_", " "):
            plateau = np.full((round(16 / speed), MELS), -4.0)
            band = 2 * "abd ".index(letter)
            plateau[:-4, band : band + 2] = 4.0
            letters.append(plateau)
        x_TF = np.concatenate([quiet, *letters, quiet])
        return (x_TF + rng.normal(0, 0.3, x_TF.shape)).astype(np.float16)


def examples(count: int, first: int = 0) -> list[Example]:
    rng = np.random.default_rng(first)
    made = []
    for number in range(first, first + count):
        text = " ".join(rng.choice(WORDS, size=int(rng.integers(1, 3))))
        name = f"{text.replace(' ', '_')}-{number}"
        tokens = tuple(TABLE.encode(text))
        frames = len(ToneArchive().get(name))
        made.append(Example(utterance_id=name, text=text, tokens=tokens, frames=frames))
    return made


STATS = NormStats(
    mean_F=np.full(MELS, -2.0, np.float32), std_F=np.full(MELS, 3.0, np.float32), frames=1000
)
CONFIG = TrainConfig(
    model=ModelConfig(
        mel_bins=MELS, vocab_size=TABLE.size, d_model=16, layers=2, heads=2, middle_layer=1
    ),
    augment=AugmentConfig(
        speeds=(0.9, 1.0, 1.1), warp=0.0, time_masks_per_s=0.2, time_mask_frames=4, mel_masks=0
    ),
    steps=12,
    batch_utterances=6,
    warmup_steps=4,
    learning_rate=5e-3,
    ema_steps=8,
    dev_every_steps=6,
    checkpoint_every_steps=4,
    threads=1,
)


def run(config: TrainConfig, folder: Path, **options):
    options.setdefault("dev", examples(6, first=100))
    return fit(
        config,
        archive=ToneArchive(),
        train=examples(24),
        stats=STATS,
        table=TABLE,
        out_dir=folder / "out",
        state_dir=folder / "state",
        facts={"data": "sha256:1"},
        **options,
    )


def test_learns_and_generalises(tmp_path):
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, d_model=32, dropout=0.0),
        augment=replace(CONFIG.augment, room_chance=0.0, noise_chance=0.0, tilt_db=1.0),
        steps=100,
        warmup_steps=10,
        dev_every_steps=60,
    )
    result = run(config, tmp_path)
    assert result.dev_wer[result.chosen] <= 0.2
    losses = [value for _, value in result.curves["loss"]]
    assert losses[-1] < 0.3 * losses[0]
    model, checkpoint = load_model(result.checkpoint)
    assert checkpoint.step == 100 and not model.training
    assert checkpoint.facts["data"] == "sha256:1"
    assert checkpoint.facts["norm"] == STATS.to_json()
    assert result.rows == 100 * 6 and result.infeasible == 0


def test_result_names_what_dev_chose(tmp_path):
    result = run(CONFIG, tmp_path)
    assert set(result.dev_wer) == {"last", "average"}
    assert result.dev_wer[result.chosen] == min(result.dev_wer.values())
    assert result.parameters == sum(
        tensor.numel() for tensor in load_checkpoint(result.checkpoint).model.values()
    )


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
import test_training_fit as t

def progress(now):
    if now.step == {stop}:
        os.kill(os.getpid(), signal.SIGKILL)

t.run(t.CONFIG, Path({folder!r}), progress=progress)
"""


@pytest.mark.slow
def test_kill_9_then_resume_gives_the_same_bits(tmp_path):
    stop = 7  # checkpoints are written after steps 4 and 8
    script = KILLED.format(
        root=str(ROOT), tests=str(Path(__file__).parent), folder=str(tmp_path / "cut"), stop=stop
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    resumed = run(CONFIG, tmp_path / "cut")
    whole = run(CONFIG, tmp_path / "whole")
    assert resumed.resumed_at == stop // 4 * 4 and whole.resumed_at == 0
    ours, theirs = (load_checkpoint(result.checkpoint) for result in (resumed, whole))
    assert ours.model.keys() == theirs.model.keys()
    assert all(torch.equal(ours.model[name], theirs.model[name]) for name in ours.model)
    assert resumed.curves == whole.curves
    assert resumed.dev_wer == whole.dev_wer


def test_other_data_or_config_starts_afresh(tmp_path):
    run(replace(CONFIG, steps=5), tmp_path)
    assert load_checkpoint(tmp_path / "state" / "resume.pt").step == 4
    again = run(replace(CONFIG, steps=5), tmp_path)
    assert again.resumed_at == 4
    assert run(replace(CONFIG, steps=5, seed=2), tmp_path).resumed_at == 0


def test_overfits_one_batch(tmp_path):
    config = replace(CONFIG, steps=300, warmup_steps=10)
    result = run(config, tmp_path, overfit_one_batch=True, dev=[])  # the batch is what judges
    assert result.dev_wer[result.chosen] == 0.0
    assert result.steps < config.steps  # it ends as soon as every word is right
    assert result.rows == result.steps * 6


def test_a_batch_that_was_not_learnt_is_told_from_one_that_was(tmp_path):
    short = run(replace(CONFIG, steps=10), tmp_path, overfit_one_batch=True)
    assert short.dev_wer[short.chosen] > 0.0 and short.steps == 10


def test_limit_shortens_the_schedule(tmp_path):
    ticks = iter(range(10**6))
    result = run(
        replace(CONFIG, steps=10**6), tmp_path, limit_minutes=0.05, clock=lambda: next(ticks) * 0.1
    )
    assert 0 < result.steps < 10**4
    schedule = load_checkpoint(result.checkpoint).config
    assert schedule.steps < 10**6 and schedule.warmup_steps <= CONFIG.warmup_steps


def test_logger_and_progress_are_told(tmp_path):
    class Recorder:
        def __init__(self):
            self.seen = []

        def log_metrics(self, metrics, step):
            self.seen.append((step, dict(metrics)))

    recorder, told = Recorder(), []
    run(CONFIG, tmp_path, logger=recorder, progress=told.append)
    assert [progress.step for progress in told] == list(range(1, 13))
    assert told[-1].dev_wer is not None
    names = {name for _, metrics in recorder.seen for name in metrics}
    assert {"loss", "middle_loss", "learning_rate", "dev_wer"} <= names


def test_bf16_autocast_trains(tmp_path):
    result = run(replace(CONFIG, steps=3, precision="bf16"), tmp_path)
    assert result.environment["precision"] == "bf16-mixed"
    weights = load_checkpoint(result.checkpoint).model
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_cost_is_measured_without_touching_the_run():
    before = torch.get_rng_state()
    clock = iter(range(1000))
    cost = estimate_cost(
        CONFIG, ToneArchive(), examples(24), STATS, clock=lambda: float(next(clock))
    )
    assert cost.step_s == 1.0 and cost.minutes == pytest.approx(12 / 60)
    assert cost.batches_per_epoch == 4
    assert torch.equal(before, torch.get_rng_state())


def test_unreadable_checkpoints_are_refused_by_name(tmp_path):
    missing = tmp_path / "none.pt"
    with pytest.raises(ConfigError, match=r"none\.pt: checkpoint not found"):
        load_checkpoint(missing)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigError, match=r"broken\.pt: not a readable checkpoint"):
        load_checkpoint(broken)
    torch.save({"step": 1}, broken)
    with pytest.raises(ConfigError, match="checkpoint schema None"):
        load_checkpoint(broken)


def test_pickled_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    path = tmp_path / "evil.pt"
    torch.save({"checkpoint_schema": 1, "model": Evil()}, path)
    with pytest.raises(ConfigError):
        load_checkpoint(path)
    assert not (tmp_path / "pwned").exists()
