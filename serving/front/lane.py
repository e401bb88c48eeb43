"""One channel's way from samples to pieces; what is steady throughout never reaches the model."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec
from serving.front.cutter import CutRule, PauseCutter, Piece
from serving.front.front_end import FrontEnd, StartState

Floats = NDArray[np.float32]


class Lane:
    """Samples at the model's rate in any cut; pieces in order of time."""

    def __init__(
        self, spec: FeatureSpec, start: StartState, rule: CutRule, *, channel: int | None = None
    ) -> None:
        self._front_end = FrontEnd(spec, start)
        self._cutter = PauseCutter(rule, channel=channel)

    def accept(self, samples_T: Floats) -> list[Piece]:
        """Take samples; give the pieces that are certain."""
        x_TF = self._front_end.accept(samples_T)
        return self._cutter.accept(x_TF, self._front_end.level_T)

    def finish(self) -> list[Piece]:
        """The rest."""
        x_TF = self._front_end.finish()
        return [
            *self._cutter.accept(x_TF, self._front_end.level_T),
            *self._cutter.finish(),
        ]


def pieces_of(blocks_TC: Iterable[Floats], lanes: list[Lane]) -> Iterator[Piece]:
    """The pieces of a recording whose columns are the lanes' channels, without steady ones."""
    for block_TC in blocks_TC:
        for at, lane in enumerate(lanes):
            yield from _heard(lane.accept(np.ascontiguousarray(block_TC[:, at])))
    for lane in lanes:
        yield from _heard(lane.finish())


def _heard(pieces: list[Piece]) -> list[Piece]:
    return [piece for piece in pieces if not piece.steady]
