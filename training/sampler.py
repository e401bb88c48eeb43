"""Duration-bucketed batches as a pure function of (seed, step)."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from governance.errors import ConfigError
from training.draws import generator

_JITTER = 0.08  # share by which durations are disturbed before sorting: neighbours vary


class BatchSampler:
    """Which utterances (by index) make the batch of a step.

    The sizes of the batches are fixed once, from the sorted durations; every epoch sorts by
    disturbed durations, fills the batches in that order and shuffles the batches. So the number
    of batches per epoch is constant and any step is found without replaying the ones before it.
    """

    def __init__(
        self, frames: Sequence[int], *, seed: int, max_utterances: int, max_frames: int
    ) -> None:
        if not frames:
            raise ConfigError("no utterance to train on", item="train split", mend="add data")
        self._frames = np.asarray(frames, np.float64)
        self._seed = seed
        self._sizes = _batch_sizes(sorted(frames), max_utterances, max_frames)
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def batches_per_epoch(self) -> int:
        """Steps in which every utterance is used once."""
        return len(self._sizes)

    def batch(self, step: int) -> tuple[int, ...]:
        """Indices of the utterances of a step (steps count from 0)."""
        epoch, position = divmod(step, len(self._sizes))
        return self._epoch(epoch)[position]

    def _draw_epoch(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        rng = generator(self._seed, "epoch", epoch)
        disturbed = self._frames * rng.uniform(1 - _JITTER, 1 + _JITTER, len(self._frames))
        order = np.argsort(disturbed, kind="stable")
        batches = np.split(order, np.cumsum(self._sizes)[:-1])
        return tuple(
            tuple(int(index) for index in batches[position])
            for position in rng.permutation(len(batches))
        )


def _batch_sizes(sorted_frames: list[int], max_utterances: int, max_frames: int) -> list[int]:
    sizes: list[int] = []
    current = 0
    for frames in sorted_frames:
        if current and (current >= max_utterances or (current + 1) * frames > max_frames):
            sizes.append(current)
            current = 0
        current += 1
    return [*sizes, current]
