"""Voice activity from the level of log-mel frames: prompt, cheap, and knowing no words.

A frame is voiced when its smoothed level (mean over the mel bins) stands out of the noise floor.
The floor falls with every quieter frame at once and rises slowly, so that it finds the room between
words and follows a room that grows louder. Every step depends on one frame and the state before
it: chunk borders leave no trace, and the state can be taken up again elsewhere.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NATS_PER_DB = math.log(10.0) / 10.0  # log-mel is the natural logarithm of power


@dataclass(frozen=True, kw_only=True)
class VoiceConfig:
    """What counts as a voice."""

    margin_db: float = 9.0  # a voiced frame stands this far above the floor
    rise_db_per_s: float = 2.0  # how fast the floor may rise
    range_db: float = 30.0  # the floor is never further below the typical level than this
    smoothing: float = 0.5  # weight of the past in the level of a frame
    onset_ms: int = 100  # a voice that lasts so long has started


@dataclass(frozen=True, kw_only=True)
class VoiceState:
    """All that a frame's judgement takes from the past."""

    floor: float  # natural log of power
    level: float
    run: int = 0  # voiced frames in a row


class VoiceActivity:
    """Watches the frames of one stream."""

    def __init__(
        self,
        typical_level: float,
        *,
        hop_ms: float,
        state: VoiceState | None = None,
        config: VoiceConfig | None = None,
    ) -> None:
        """``typical_level`` is the corpus' mean log-mel: where the floor begins."""
        config = config or VoiceConfig()
        self._margin = config.margin_db * _NATS_PER_DB
        self._rise = config.rise_db_per_s * _NATS_PER_DB * hop_ms / 1000
        self._lowest = typical_level - config.range_db * _NATS_PER_DB
        self._past = config.smoothing
        self._onset_frames = max(1, math.ceil(config.onset_ms / hop_ms))
        self.state = state or VoiceState(floor=typical_level, level=typical_level)

    def accept(self, x_TF: NDArray[np.floating]) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
        """Take log-mel frames: which are voiced, and the first frames of voices that started.

        The latter count from the first of these frames and may be negative: a voice is known to
        have started only when it has lasted.
        """
        state, past = self.state, self._past
        floor, smooth, run = state.floor, state.level, state.run
        voiced, onsets = [], []
        for at, level in enumerate(x_TF.mean(axis=1, dtype=np.float64).tolist()):
            smooth = past * smooth + (1.0 - past) * level
            floor = max(self._lowest, min(smooth, floor + self._rise))
            is_voiced = smooth > floor + self._margin
            run = run + 1 if is_voiced else 0
            voiced.append(is_voiced)
            if run == self._onset_frames:
                onsets.append(at + 1 - run)
        self.state = VoiceState(floor=floor, level=smooth, run=run)
        return np.array(voiced, np.bool_), tuple(onsets)
