"""Mean and variance normalisation that starts warm and advances frame by frame.

The mean at frame t is ``(N0 * prior + sum of frames 1..t) / (N0 + t)``: a prior worth N0 frames
(the speaker's, or the corpus') is gradually replaced by what is heard. Files run through the very
same recursion, so a stream cut in any way gives the same bits as the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governance.errors import AuricleError, ConfigError

PRIOR_FRAMES = 300
_STD_FLOOR = 1e-3  # log-mel of one constant signal must not divide by zero


@dataclass(frozen=True, kw_only=True, eq=False)
class NormStats:
    """Mean and standard deviation per mel bin over many recordings."""

    mean_F: NDArray[np.float32]
    std_F: NDArray[np.float32]  # never below a small floor
    frames: int  # how many frames were counted

    def to_json(self) -> dict[str, Any]:
        """Lists of numbers, ready for JSON; `from_json` gives the same float32 bits back."""
        return {
            "mean": [float(value) for value in self.mean_F],
            "std": [float(value) for value in self.std_F],
            "frames": self.frames,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "NormStats":
        """Read what `to_json` gave."""
        try:
            mean_F = np.asarray(document["mean"], np.float32)
            std_F = np.asarray(document["std"], np.float32)
            frames = int(document["frames"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"not usable ({error!r})", item="norm statistics", mend="run featurize again"
            ) from error
        _check(mean_F, std_F)
        return cls(mean_F=mean_F, std_F=std_F, frames=frames)


class StatsAccumulator:
    """Sums for `NormStats`; parts counted apart merge into the whole."""

    def __init__(self, mel_bins: int) -> None:
        self.frames = 0
        self.sum_F = np.zeros(mel_bins, np.float64)
        self.square_sum_F = np.zeros(mel_bins, np.float64)

    def add(self, x_TF: NDArray[Any]) -> None:
        """Count the frames of one recording."""
        wide_TF = x_TF.astype(np.float64)
        self.frames += len(wide_TF)
        self.sum_F += wide_TF.sum(axis=0)
        self.square_sum_F += np.square(wide_TF, out=wide_TF).sum(axis=0)

    def merge(self, other: "StatsAccumulator") -> None:
        """Count everything that ``other`` counted."""
        self.frames += other.frames
        self.sum_F += other.sum_F
        self.square_sum_F += other.square_sum_F

    def stats(self) -> NormStats:
        """What was counted so far."""
        if self.frames == 0:
            raise AuricleError(
                "no frame was counted",
                item="norm statistics",
                mend="check that the train split holds recordings longer than one window",
            )
        mean_F = self.sum_F / self.frames
        variance_F = np.maximum(self.square_sum_F / self.frames - mean_F**2, _STD_FLOOR**2)
        return NormStats(
            mean_F=mean_F.astype(np.float32),
            std_F=np.sqrt(variance_F).astype(np.float32),
            frames=self.frames,
        )


class RunningNormaliser:
    """Normalises a stream of frames; its state is the sum of what it has seen."""

    def __init__(
        self,
        prior_mean_F: NDArray[Any],
        std_F: NDArray[Any],
        prior_frames: int = PRIOR_FRAMES,
    ) -> None:
        _check(prior_mean_F, std_F)
        if prior_frames < 0:
            raise ConfigError("must not be negative", item="prior_frames", mend="use 300")
        self._inverse_std_F = (1.0 / np.asarray(std_F, np.float64)).astype(np.float32)
        self._count = prior_frames
        self._sum_F = np.asarray(prior_mean_F, np.float64) * prior_frames

    def apply(self, x_TF: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise the next frames. Chunk borders leave no trace: the sum runs one by one."""
        if len(x_TF) == 0:
            return np.empty(x_TF.shape, np.float32)
        sums_TF = np.empty((len(x_TF) + 1, x_TF.shape[1]), np.float64)
        sums_TF[0] = self._sum_F
        sums_TF[1:] = x_TF
        np.add.accumulate(sums_TF, axis=0, out=sums_TF)
        self._sum_F = sums_TF[-1].copy()
        counts_T1 = self._count + np.arange(1.0, len(sums_TF))[:, None]
        self._count += len(x_TF)
        mean_TF = np.divide(sums_TF[1:], counts_T1, out=sums_TF[1:])
        return np.subtract(x_TF, mean_TF).astype(np.float32) * self._inverse_std_F


def normalise(
    x_TF: NDArray[Any],
    prior_mean_F: NDArray[Any],
    std_F: NDArray[Any],
    prior_frames: int = PRIOR_FRAMES,
) -> NDArray[np.float32]:
    """Normalise a whole recording by the recursion of `RunningNormaliser`."""
    return RunningNormaliser(prior_mean_F, std_F, prior_frames).apply(x_TF)


def _check(mean_F: NDArray[Any], std_F: NDArray[Any]) -> None:
    mean_F, std_F = np.asarray(mean_F), np.asarray(std_F)
    if mean_F.ndim != 1 or mean_F.shape != std_F.shape:
        raise ConfigError(
            f"mean {mean_F.shape} and std {std_F.shape} must be one vector each, equally long",
            item="norm statistics",
            mend="take both from one NormStats",
        )
    if not (np.isfinite(mean_F).all() and np.isfinite(std_F).all() and (std_F > 0).all()):
        raise ConfigError(
            "holds a number that is not finite, or a deviation that is not positive",
            item="norm statistics",
            mend="run featurize again",
        )
