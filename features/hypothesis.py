"""What decoding answers: words with their frames, and the protocol that every decoder follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.confidence import word_confidence
from features.tokens import TokenTable
from governance.errors import AuricleError


class DecodingError(AuricleError):
    """Log-probabilities that do not fit the token table, or a decoder used out of order."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word and the model frames in which its letters were emitted."""

    text: str
    start_frame: int  # frame of the first letter
    end_frame: int  # frame of the last letter + 1
    confidence: float  # 0..1


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One transcript with the evidence for it."""

    text: str  # words joined by one space
    tokens: tuple[int, ...]  # the ids that spell `text`
    frames: tuple[int, ...]  # the frame in which each token was emitted, never decreasing
    words: tuple[Word, ...]
    score: float  # natural log: acoustics, plus alpha * language model + beta * words + hotwords
    confidence: float  # 0..1, mean over words; of all frames where there is no word


class StreamingDecoder(Protocol):
    """One utterance being decoded; chunk borders never change the answer."""

    @property
    def frames_seen(self) -> int:
        """Frames accepted so far."""

    @property
    def stable_text(self) -> str:
        """Complete words that no later frame can change."""

    def accept(self, logp_TV: NDArray[np.floating]) -> None:
        """Take the next frames of natural-log probabilities, any number of them."""

    def partial(self) -> str:
        """The best text so far; its last word may be unfinished."""

    def best(self) -> Hypothesis:
        """The best hypothesis so far, with word times; the utterance goes on."""

    def pause(self) -> Hypothesis:
        """End the utterance at a pause; the next one begins with the next frame."""

    def finish(self) -> Hypothesis:
        """End the utterance and give the final answer."""


def checked_logp(logp_TV: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """The frames as contiguous float64, refused where they do not fit a table of ``size``."""
    if logp_TV.ndim != 2 or logp_TV.shape[1] != size:
        raise DecodingError(
            f"log-probabilities have shape {logp_TV.shape}, expected [frames, {size}]",
            mend="decode with the token table of the model that made them",
        )
    # Always a contiguous copy: the SIMD routines then see equal rows whatever the chunking.
    checked = np.array(logp_TV, dtype=np.float64, order="C")
    if np.isnan(checked).any() or (checked > 1e-3).any():
        raise DecodingError("log-probabilities hold NaN or values above 0")
    return checked


def make_hypothesis(
    emitted: Sequence[tuple[int, int]],
    table: TokenTable,
    confidence: Sequence[float],
    score: float,
) -> Hypothesis:
    """(token, frame) pairs to words with times; ``confidence`` has one number per frame.

    Outer and repeated spaces vanish, so that ``table.encode(text)`` equals the tokens.
    """
    tokens, frames = _without_extra_spaces(emitted, table.space)
    text = table.decode(tokens)
    words, position = [], 0
    for word in text.split():
        start, end = frames[position], frames[position + len(word) - 1] + 1
        sure = word_confidence(confidence, start, end)
        words.append(Word(text=word, start_frame=start, end_frame=end, confidence=sure))
        position += len(word) + 1
    evidence = [word.confidence for word in words] or confidence
    return Hypothesis(
        text=text,
        tokens=tuple(tokens),
        frames=tuple(frames),
        words=tuple(words),
        score=score,
        confidence=sum(evidence) / len(evidence) if evidence else 0.0,
    )


def _without_extra_spaces(
    emitted: Sequence[tuple[int, int]], space: int
) -> tuple[list[int], list[int]]:
    tokens: list[int] = []
    frames: list[int] = []
    for token, frame in emitted:
        if token == space and (not tokens or tokens[-1] == space):
            continue
        tokens.append(token)
        frames.append(frame)
    if tokens and tokens[-1] == space:
        tokens.pop()
        frames.pop()
    return tokens, frames
