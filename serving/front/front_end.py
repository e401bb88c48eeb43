"""How a recording or a stream enters the model: log-mel and normalisation, started cold or warm."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.fbank import StreamingFbank
from features.norm import RunningNormaliser
from features.spec import FeatureSpec

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class StartState:
    """The prior with which normalisation starts; fixed for the whole recording or stream."""

    mean_F: Floats
    std_F: Floats
    prior_frames: int
    prior_digest: str | None = None  # None: the bundle's own statistics, a cold start

    @property
    def warm(self) -> bool:
        """Whether the prior is a speaker's."""
        return self.prior_digest is not None


class FrontEnd:
    """Samples in any cut to normalised features; equal bits for every chunking."""

    def __init__(self, spec: FeatureSpec, start: StartState) -> None:
        self._fbank = StreamingFbank(spec)
        self._normaliser = RunningNormaliser(start.mean_F, start.std_F, start.prior_frames)
        self.level_T: NDArray[np.float64] = np.empty(0)
        """Mean log-mel of the frames given last, before their normalisation."""

    def accept(self, samples_T: Floats) -> Floats:
        """Normalised frames that the samples complete."""
        return self._normalised(self._fbank.accept(samples_T))

    def finish(self) -> Floats:
        """Frames that were held back until the end."""
        return self._normalised(self._fbank.finish())

    def _normalised(self, x_TF: Floats) -> Floats:
        self.level_T = x_TF.mean(axis=1, dtype=np.float64)
        return self._normaliser.apply(x_TF)
