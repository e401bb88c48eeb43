"""How sure the model is, from the entropy of its frames (Laptev and Ginsburg, arXiv 2212.08703).

Tsallis entropy with the exponential normalisation of that paper: 1 where one token takes all the
probability, 0 where all tokens are equally likely. It is raw evidence; calibrating it against
word errors is a later step's work.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Below 1 the entropy listens to the unlikely tokens. The paper takes 1/3 for sub-word models; with
# 29 peaky characters that calls a letter of 97 % only 10 % sure, and nearly all words look alike.
TSALLIS_Q = 0.5


def frame_confidence(logp_TV: NDArray[np.float64], *, q: float = TSALLIS_Q) -> NDArray[np.float64]:
    """Confidence in [0, 1] of each frame of natural-log probabilities."""
    vocabulary = logp_TV.shape[1]
    power_T = np.exp(logp_TV * q).sum(axis=1)
    entropy_T = (power_T - 1.0) / (1.0 - q)
    floor = math.exp(-(vocabulary ** (1.0 - q) - 1.0) / (1.0 - q))  # all tokens equally likely
    confidence: NDArray[np.float64] = (np.exp(-entropy_T) - floor) / (1.0 - floor)
    return np.clip(confidence, 0.0, 1.0)


def word_confidence(
    frames: Sequence[float], start: int, end: int, *, how: Literal["min", "mean"] = "min"
) -> float:
    """Confidence of the word that spans frames ``start`` to ``end`` (exclusive).

    The blanks inside count too: one that might have been a letter is a doubt about the word. The
    least sure frame decides by default, since one wrong letter makes a wrong word.
    """
    span = frames[start:end]
    if not span:
        return 0.0
    return float(min(span) if how == "min" else sum(span) / len(span))
