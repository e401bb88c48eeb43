"""Whether anybody spoke: how undecided a model is where it hears letters.

In speech that it knows, a model is nearly certain of each letter. In noise it hears letters too, but
each frame is torn between several. The doubt of a stretch is the mean entropy of its frames, each
weighted by the square of the probability that it holds a letter at all: frames of silence say
nothing. It is taken from the model's frames alone, so every decoder gives the same.

A limit belongs to a model and is found on its dev recordings (`doubt_limit`). The floor is where
noise begins for a model that knows its speech: see ``benchmarks/silence.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.tokens import BLANK, TokenTable

FLOOR_NATS = 0.65
"""No limit is lower. Words in noise had 0.66 and more, 99 % of barista's dev recordings 0.62 and less
(the rest were noise before the first word, or lost anyway)."""
MAY_COST = 0.001
"""Share of the dev split's words that a limit may cost."""


class LetterDoubt:
    """Sums over the frames of one stretch, in order: chunk borders leave no trace."""

    def __init__(self, table: TokenTable) -> None:
        self._space = table.space
        self.reset()

    def reset(self) -> None:
        """Begin a new stretch."""
        self._entropy = 0.0
        self._weight = 0.0

    def accept(self, logp_TV: NDArray[np.floating]) -> None:
        """Take the next frames of natural-log probabilities."""
        logp = np.array(logp_TV, np.float64, order="C")
        p_TV = np.exp(logp)
        entropy_T = -(p_TV * np.maximum(logp, -745.0)).sum(axis=1)  # exp(-745) is the least above 0
        letters_T = np.clip(1.0 - p_TV[:, BLANK] - p_TV[:, self._space], 0.0, 1.0)
        weight_T = letters_T * letters_T
        for entropy, weight in zip((entropy_T * weight_T).tolist(), weight_T.tolist(), strict=True):
            self._entropy += entropy
            self._weight += weight

    @property
    def nats(self) -> float:
        """The doubt so far: 0 is certain, the logarithm of the alphabet's size clueless."""
        return self._entropy / self._weight if self._weight > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A recording of known words, as a model heard it."""

    doubt_nats: float
    words: int  # said
    errors: int  # of the recogniser; all of ``words`` would be lost without its answer


def doubt_limit(recordings: Sequence[Judged]) -> float:
    """The least limit that costs hardly any word of these recordings, and never below the floor."""
    allowed = MAY_COST * sum(one.words for one in recordings)
    limit, cost = FLOOR_NATS, 0
    for one in sorted(recordings, key=lambda one: -one.doubt_nats):
        cost += one.words - one.errors
        if one.doubt_nats <= FLOOR_NATS:
            break
        if cost > allowed:
            limit = one.doubt_nats
            break
    return round(limit + 5e-5, 4) if limit > FLOOR_NATS else limit
