"""Long recordings in pieces, cut where it is quietest: attention and memory stay bounded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CutRule:
    """Bounds of a piece, in feature frames of 10 ms."""

    max_frames: int = 3000  # 30 s
    min_frames: int = 1000  # 10 s: shorter pieces would cut context for nothing
    quiet_frames: int = 30  # a pause is judged over 0.3 s
    margin_frames: int = 50  # no cut so close to the end of what is known


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of normalised features and where it began."""

    start_frame: int
    x_TF: Floats


class PauseCutter:
    """Collects frames, gives pieces; every frame is in exactly one piece, whatever the chunking."""

    def __init__(self, rule: CutRule | None = None) -> None:
        self._rule = rule or CutRule()
        self._parts: list[Floats] = []
        self._held = 0
        self._start_frame = 0

    def accept(self, x_TF: Floats) -> list[Piece]:
        """Take frames; give the pieces that are certain."""
        if not len(x_TF):
            return []
        self._parts.append(x_TF)
        self._held += len(x_TF)
        if self._held <= self._rule.max_frames:
            return []
        pieces = []
        held_TF = np.concatenate(self._parts)
        while len(held_TF) > self._rule.max_frames:
            cut = self._quietest(held_TF[: self._rule.max_frames])
            pieces.append(self._piece(held_TF[:cut]))
            held_TF = held_TF[cut:]
        self._parts, self._held = [held_TF.copy()], len(held_TF)
        return pieces

    def finish(self) -> list[Piece]:
        """The rest, where there is any."""
        if not self._held:
            return []
        rest_TF = np.concatenate(self._parts)
        self._parts, self._held = [], 0
        return [self._piece(rest_TF)]

    def _piece(self, x_TF: Floats) -> Piece:
        piece = Piece(start_frame=self._start_frame, x_TF=x_TF)
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
        return first + latest + width // 2
