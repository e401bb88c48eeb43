"""From the feature archive to training batches; the batch of a step is a pure function of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from features.norm import NormStats, normalise
from training.augment import corrupt, cut_silence, spec_augment, speech_bounds
from training.config import TrainConfig
from training.draws import generator
from training.loss import frames_needed
from training.sampler import BatchSampler
from training.subsampling import inputs_for, output_frames

Tensor = Any
Floats = NDArray[np.float32]

_FRAMES_PER_S = 100
_LEAST_FRAMES = 7  # the subsampling needs them for its first output
_FAINT_FRAMES = 25  # a word may begin so long before its level stands out, or end so long after


class Archive(Protocol):
    """What training asks of `features.archive.FeatureArchive`."""

    def get(self, utterance_id: str, speed: float = 1.0) -> NDArray[np.float16]:
        """Log-mel ``[T, F]`` of a recording at a speed."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One utterance as training sees it."""

    utterance_id: str
    text: str  # normalised reference, for the error rate
    tokens: tuple[int, ...]  # the reference in the token table
    frames: int  # log-mel frames at speed 1
    prior_mean_F: Floats | None = None  # of the speaker's earlier utterances; None = cold


class Batch(NamedTuple):
    """One training step's input, on the CPU."""

    step: int
    chunk_frames: int  # 0 = full context
    x_BTF: Tensor  # float32, normalised, zero-padded
    len_B: Tensor  # int64 feature frames
    spoken_B2: Tensor  # int64 encoder frames that may hold labels: the first, one past the last
    tokens_N: Tensor  # int64, all references end to end
    token_len_B: Tensor  # int64
    infeasible: int  # rows too short to spell their reference


class View(NamedTuple):
    """One version of a recording."""

    x_TF: Floats
    speech: tuple[
        int, int
    ]  # feature frames: its first, one past its last; all where nothing is known


class TrainingData:
    """``data[step]`` gives the `Batch` of a step."""

    def __init__(
        self,
        archive: Archive,
        examples: Sequence[Example],
        stats: NormStats,
        config: TrainConfig,
        *,
        one_batch: bool = False,
    ) -> None:
        self._archive = archive
        self._examples = examples
        self._stats = stats
        self._config = config
        self._one_batch = one_batch
        self._speech = [speech_bounds(_clean_floats(archive, example)) for example in examples]
        self.sampler = BatchSampler(
            [end - start for start, end in self._speech],
            seed=config.seed,
            max_utterances=config.batch_utterances,
            max_frames=int(config.batch_s * _FRAMES_PER_S),
        )

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, step: int) -> Batch:
        indices = self.sampler.batch(0 if self._one_batch else step)
        if self._one_batch:
            views = [self._plain(index) for index in indices]
        else:
            views = [self.view(index, step) for index in indices]
        tokens = [self._examples[index].tokens for index in indices]
        return collate(views, tokens, step, draw_chunk(self._config, step))

    def view(self, index: int, step: int, view: int = 0) -> View:
        """One augmented, normalised and cut version of a recording."""
        config, example = self._config.augment, self._examples[index]
        rng = generator(self._config.seed, step, example.utterance_id, view)
        speed = draw_speed(self._config, step)
        x_TF = self._archive.get(example.utterance_id, speed).astype(np.float32)
        start, end = (int(bound / speed) for bound in self._speech[index])
        keep = cut_silence((start, end), len(x_TF), draw_margins(self._config, step), rng)
        enough = max(_LEAST_FRAMES, inputs_for(frames_needed(example.tokens)))
        if keep.stop - keep.start < enough:
            keep = slice(0, len(x_TF))
        touched = rng.random() * config.ramp_steps <= step
        if touched:
            x_TF = corrupt(x_TF, config, rng, self._other)
        warm = example.prior_mean_F is not None and rng.random() < self._config.warm_prior_chance
        x_TF = self._normalise(x_TF, example if warm else None)[keep]
        if touched:
            x_TF = spec_augment(x_TF, config, rng)
        return View(x_TF, (start - keep.start, end - keep.start))

    def _plain(self, index: int) -> View:
        x_TF = self._archive.get(self._examples[index].utterance_id, 1.0)
        return View(self._normalise(x_TF, None), self._speech[index])

    def _normalise(self, x_TF: NDArray[Any], warm: Example | None) -> Floats:
        # The whole recording is normalised before it is cut: the state is then the one in service.
        prior_F = self._stats.mean_F if warm is None else warm.prior_mean_F
        assert prior_F is not None
        return normalise(x_TF, prior_F, self._stats.std_F)

    def _other(self, rng: np.random.Generator) -> Floats:
        example = self._examples[int(rng.integers(len(self._examples)))]
        return _clean_floats(self._archive, example)


def draw_speed(config: TrainConfig, step: int) -> float:
    """Speed of all recordings of a step: drawn apart they would need more padding."""
    rng = generator(config.seed, "speed", step)
    return float(rng.choice(config.augment.speeds))


def draw_margins(config: TrainConfig, step: int) -> tuple[int, int]:
    """Frames of silence left beside the speech of all recordings of a step, again for the padding.

    Log-uniform: mostly short, which is cheap, sometimes long, as in service.
    """
    rng = generator(config.seed, "margins", step)
    low, high = (math.log(margin_s) for margin_s in config.augment.margin_s)
    before, after = (int(math.exp(rng.uniform(low, high)) * _FRAMES_PER_S) for _ in range(2))
    return before, after


def draw_chunk(config: TrainConfig, step: int) -> int:
    """Chunk of a step's attention in encoder frames; 0 = full context."""
    rng = generator(config.seed, "chunk", step)
    if rng.random() < config.full_context_share:
        return 0
    low, high = config.chunk_frames
    return int(rng.integers(low, high + 1))


def collate(
    views: Sequence[View], tokens: Sequence[Sequence[int]], step: int, chunk_frames: int
) -> Batch:
    """Pad with zeros to the longest row."""
    rows = [view.x_TF for view in views]
    lengths = [len(row) for row in rows]
    x_BTF = np.zeros((len(rows), max(_LEAST_FRAMES, *lengths), rows[0].shape[1]), np.float32)
    for number, row in enumerate(rows):
        x_BTF[number, : len(row)] = row
    needed = [frames_needed(spelled) for spelled in tokens]
    spoken = [_spoken(view, least) for view, least in zip(views, needed, strict=True)]
    return Batch(
        step=step,
        chunk_frames=chunk_frames,
        x_BTF=torch.from_numpy(x_BTF),
        len_B=torch.tensor(lengths),
        spoken_B2=torch.tensor(spoken),
        tokens_N=torch.tensor([token for spelled in tokens for token in spelled]),
        token_len_B=torch.tensor([len(spelled) for spelled in tokens]),
        infeasible=sum(
            output_frames(length) < least for length, least in zip(lengths, needed, strict=True)
        ),
    )


def _spoken(view: View, least: int) -> tuple[int, int]:
    """Encoder frames that may hold a view's labels; all, where the speech is too short for them."""
    start, end = view.speech
    whole = output_frames(len(view.x_TF))
    first = output_frames(max(0, start - _FAINT_FRAMES))
    last = min(whole, output_frames(end + _FAINT_FRAMES))
    return (first, last) if last - first >= least else (0, whole)


def clean_batches(
    archive: Archive,
    examples: Sequence[Example],
    stats: NormStats,
    *,
    max_frames: int = 12_000,
    priors: Mapping[str, Floats] | None = None,
) -> list[tuple[list[int], Batch]]:
    """Un-augmented whole recordings for evaluation, sorted by length, with their indices."""
    order = sorted(range(len(examples)), key=lambda i: (examples[i].frames, i))
    batches: list[tuple[list[int], Batch]] = []
    group: list[int] = []
    for position, index in enumerate(order):
        group.append(index)
        following = order[position + 1] if position + 1 < len(order) else None
        full = following is None or examples[following].frames * (len(group) + 1) > max_frames
        if full:
            rows = [_clean(archive, examples[i], stats, priors) for i in group]
            views = [View(x_TF, (0, len(x_TF))) for x_TF in rows]
            batches.append((group, collate(views, [examples[i].tokens for i in group], 0, 0)))
            group = []
    return batches


def _clean_floats(archive: Archive, example: Example) -> Floats:
    return archive.get(example.utterance_id, 1.0).astype(np.float32)


def _clean(
    archive: Archive, example: Example, stats: NormStats, priors: Mapping[str, Floats] | None
) -> Floats:
    prior_F = (priors or {}).get(example.utterance_id, stats.mean_F)
    return normalise(archive.get(example.utterance_id, 1.0), prior_F, stats.std_F)
