"""Greedy CTC decoding: the best token of every frame, repeats and blanks removed."""

import numpy as np
from numpy.typing import NDArray

from features.confidence import frame_confidence
from features.hypothesis import DecodingError, Hypothesis, checked_logp, make_hypothesis
from features.tokens import BLANK, TokenTable


class GreedyDecoder:
    """A streaming greedy decoder; nothing that it has said ever changes."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._finished = False
        self._begin()

    def _begin(self) -> None:
        self._last = BLANK
        self._emitted: list[tuple[int, int]] = []
        self._confidence: list[float] = []
        self._score = 0.0

    @property
    def frames_seen(self) -> int:
        """Frames accepted so far."""
        return len(self._confidence)

    @property
    def stable_text(self) -> str:
        """All words but the one that may still grow."""
        text = self._table.decode(token for token, _ in self._emitted)
        return " ".join(text[: text.rfind(" ") + 1].split())

    def accept(self, logp_TV: NDArray[np.floating]) -> None:
        """Take the next frames."""
        if self._finished:
            raise DecodingError("the utterance has ended", mend="make a new decoder")
        logp = checked_logp(logp_TV, self._table.size)
        if not len(logp):
            return
        first = len(self._confidence)
        for offset, token in enumerate(logp.argmax(axis=1).tolist()):
            if token not in (BLANK, self._last):
                self._emitted.append((token, first + offset))
            self._last = token
        for best in logp.max(axis=1).tolist():  # summed in order: equal for every chunking
            self._score += best
        self._confidence += frame_confidence(logp).tolist()

    def partial(self) -> str:
        """The text so far."""
        return " ".join(self._table.decode(token for token, _ in self._emitted).split())

    def best(self) -> Hypothesis:
        """The hypothesis so far."""
        return make_hypothesis(self._emitted, self._table, self._confidence, self._score)

    def finish(self) -> Hypothesis:
        """End the utterance."""
        self._finished = True
        return self.best()

    def pause(self) -> Hypothesis:
        """End the utterance at a pause and begin the next."""
        hypothesis = self.best()
        self._begin()
        return hypothesis
