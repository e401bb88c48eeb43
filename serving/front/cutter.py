"""Long recordings in pieces, cut where it is quietest: attention and memory stay bounded."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CutRule:
    """Bounds of a piece, in feature frames of 10 ms."""

    # Models are trained on single utterances: 56 of barista's joined to 8 minutes had 21 errors
    # alone, 68 in pieces of at most 30 s, 30 in pieces of at most 12 s, 42 of at most 8 s.
    max_frames: int = 1200  # 12 s
    min_frames: int = 400  # 4 s
    quiet_frames: int = 30  # a pause is judged over 0.3 s
    margin_frames: int = 50  # no cut so close to the end of what is known
    step_frames: int = 4  # cuts lie between two frames of the model: the next piece has its phase


_STEADY_DB = 1.25
_STEADY_FRAMES = 20  # 0.2 s
_JUDGED_FRAMES = 100  # of less than a second nothing is claimed


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of normalised features and where it began."""

    start_frame: int
    x_TF: Floats
    channel: int | None = None  # None: all channels, mixed
    steady: bool = False  # silence or an even noise throughout: nobody speaks


class PauseCutter:
    """Collects frames, gives pieces; every frame is in exactly one piece, whatever the chunking."""

    def __init__(self, rule: CutRule | None = None, *, channel: int | None = None) -> None:
        self._rule = rule or CutRule()
        self._channel = channel
        self._parts: list[Floats] = []
        self._levels: list[NDArray[np.float64]] = []
        self._held = 0
        self._start_frame = 0

    def accept(self, x_TF: Floats, level_T: NDArray[np.float64] | None = None) -> list[Piece]:
        """Take frames, and their mean log-mel; give the pieces that are certain."""
        if not len(x_TF):
            return []
        self._parts.append(x_TF)
        self._levels.append(x_TF.mean(axis=1, dtype=np.float64) if level_T is None else level_T)
        self._held += len(x_TF)
        if self._held <= self._rule.max_frames:
            return []
        pieces = []
        held_TF, level_T = np.concatenate(self._parts), np.concatenate(self._levels)
        while len(held_TF) > self._rule.max_frames:
            cut = self._quietest(held_TF[: self._rule.max_frames])
            pieces.append(self._piece(held_TF[:cut], level_T[:cut]))
            held_TF, level_T = held_TF[cut:], level_T[cut:]
        self._parts, self._held = [held_TF.copy()], len(held_TF)
        self._levels = [level_T.copy()]
        return pieces

    def finish(self) -> list[Piece]:
        """The rest, where there is any."""
        if not self._held:
            return []
        rest_TF, level_T = np.concatenate(self._parts), np.concatenate(self._levels)
        self._parts, self._levels, self._held = [], [], 0
        return [self._piece(rest_TF, level_T)]

    def _piece(self, x_TF: Floats, level_T: NDArray[np.float64]) -> Piece:
        piece = Piece(
            start_frame=self._start_frame,
            x_TF=x_TF,
            channel=self._channel,
            steady=is_steady(level_T),
        )
        self._start_frame += len(x_TF)
        return piece

    def _quietest(self, window_TF: Floats) -> int:
        """Middle of the quietest stretch; the latest of equals, so pieces are long."""
        rule = self._rule
        first, last = rule.min_frames, len(window_TF) - rule.margin_frames
        level_T = window_TF[first:last].mean(axis=1, dtype=np.float64)
        width = min(rule.quiet_frames, len(level_T))
        smooth_T = np.convolve(level_T, np.full(width, 1.0 / width), mode="valid")
        latest = len(smooth_T) - 1 - int(np.argmin(smooth_T[::-1]))
        cut = first + latest + width // 2
        return cut - cut % rule.step_frames


def is_steady(level_T: NDArray[np.float64]) -> bool:
    """Whether the level over 0.2 s hardly moves: so even is no voice.

    White, pink, brown noise and hum moved by at most 1.1 dB in 30 s; barista's speech by 2.1 dB and
    more in white noise of thrice its power, and by 1.4 dB in noise of ten times its power.
    """
    if len(level_T) < _JUDGED_FRAMES:
        return False
    sums_T = np.cumsum(np.concatenate([[0.0], level_T]))
    smooth_T = (sums_T[_STEADY_FRAMES:] - sums_T[:-_STEADY_FRAMES]) / _STEADY_FRAMES
    return float(np.ptp(smooth_T)) < _STEADY_DB * math.log(10.0) / 10.0
