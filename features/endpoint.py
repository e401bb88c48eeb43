"""Endpointing: when an utterance of a live stream is over.

The three rules of sherpa-onnx (and of Kaldi before it) and one for noise, in milliseconds of
model frames:

    ==================  =======================  ======================================
    rule                its sherpa name          fires when
    ==================  =======================  ======================================
    trailing-silence    rule2                    something was said, then silence
    word-gap            -                        something was said, then long no word,
                                                 though it is never silent
    initial-silence     rule1                    hardly anything was said for long
    max-utterance       rule3                    the utterance is long, silence or not
    ==================  =======================  ======================================

A frame has no word when blank and space share nearly all its probability. It is silent when it has
no word and no voice is heard in it either: the letters of a long vowel are narrow spikes, and a
short pause must not be seen between two of them. After an endpoint the next utterance begins with
the next frame. Counting is per frame, so chunk borders do not matter.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.hypothesis import checked_logp
from features.tokens import BLANK, TokenTable
from governance.errors import ConfigError

Rule = Literal["trailing-silence", "word-gap", "initial-silence", "max-utterance"]


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """When to end an utterance."""

    trailing_silence_ms: int = 800  # silence after speech
    word_gap_ms: int = 1_500  # no word after speech, however loud the room
    initial_silence_ms: int = 5_000  # silence with nothing said
    max_utterance_ms: int = 20_000  # length, whatever is heard
    least_speech_frames: int = 3  # fewer are a noise, or a word still begun: no pause ends them
    speech_threshold: float = 0.5  # a frame is speech when letters hold more probability than this

    def __post_init__(self) -> None:
        times = ("trailing_silence_ms", "word_gap_ms", "initial_silence_ms", "max_utterance_ms")
        for name in (*times, "least_speech_frames"):
            if getattr(self, name) <= 0:
                raise ConfigError("must be above 0", item=f"endpoint.{name}")
        if not 0 < self.speech_threshold < 1:
            raise ConfigError("must lie between 0 and 1", item="endpoint.speech_threshold")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One end of an utterance."""

    frame: int  # first frame of the next utterance, counted from the stream's start
    rule: Rule  # which rule fired
    speech: bool  # whether anything was said in the utterance that ends


def speech_frames(
    logp_TV: NDArray[np.floating], table: TokenTable, *, threshold: float
) -> NDArray[np.bool_]:
    """Which frames hold speech: all but blank and space together exceed ``threshold``."""
    logp = checked_logp(logp_TV, table.size)
    silent: NDArray[np.float64] = np.exp(logp[:, BLANK]) + np.exp(logp[:, table.space])
    return 1.0 - silent > threshold


class Endpointer:
    """Watches one stream."""

    def __init__(self, config: EndpointConfig, table: TokenTable, *, frame_ms: int) -> None:
        self._config, self._table, self._frame_ms = config, table, frame_ms
        self._frame = 0
        self.reset()

    @property
    def trailing_silence_ms(self) -> int:
        """Silence since the last speech, or since the utterance began."""
        return self._silent * self._frame_ms

    @property
    def in_speech(self) -> bool:
        """Whether enough was said in this utterance for a pause to end it."""
        return self._speech >= self._config.least_speech_frames

    def reset(self) -> None:
        """Begin a new utterance here (an endpoint does so itself; a client's Finalize needs it)."""
        self._length = 0
        self._silent = 0
        self._wordless = 0
        self._speech = 0

    def accept(
        self, logp_TV: NDArray[np.floating], voiced_T: NDArray[np.bool_] | None = None
    ) -> tuple[Endpoint, ...]:
        """Take the next frames; gives the endpoints among them, mostly none.

        ``voiced_T`` says in which of them a voice is heard (`features.voice`); without it the
        words alone decide.
        """
        speech_T = speech_frames(logp_TV, self._table, threshold=self._config.speech_threshold)
        sound_T = speech_T if voiced_T is None else speech_T | voiced_T
        endpoints = []
        for is_speech, is_sound in zip(speech_T.tolist(), sound_T.tolist(), strict=True):
            self._frame += 1
            self._length += 1
            self._silent = 0 if is_sound else self._silent + 1
            self._wordless = 0 if is_speech else self._wordless + 1
            self._speech += is_speech
            if rule := self._fired():
                endpoints.append(Endpoint(frame=self._frame, rule=rule, speech=self._speech > 0))
                self.reset()
        return tuple(endpoints)

    def _fired(self) -> Rule | None:
        config = self._config
        wordless_ms = self._wordless * self._frame_ms
        if self.in_speech and self.trailing_silence_ms >= config.trailing_silence_ms:
            return "trailing-silence"
        if self.in_speech and wordless_ms >= config.word_gap_ms:
            return "word-gap"
        if not self.in_speech and wordless_ms >= config.initial_silence_ms:
            return "initial-silence"
        if self._length * self._frame_ms >= config.max_utterance_ms:
            return "max-utterance"
        return None
