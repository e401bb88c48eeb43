"""One recording's way through windows of at most 30 s, as Whisper was trained to be led.

The model itself says where the next window begins: after the last moment that it closed with a time
stamp. So windows of one recording follow each other; windows of several recordings share a call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.adopted.mel import levels_T
from serving.front.cutter import is_steady

Floats = NDArray[np.float32]
WINDOW_FRAMES = 3000  # 30 s
FRAME_S = 0.01
STAMP_S = 0.02
_STAMP_FRAMES = 2
# As faster-whisper's defaults: a window is silence when the model says so and is unsure of its text.
NO_SPEECH, UNSURE_LOGPROB = 0.6, -1.0


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of features and how it is to be read."""

    x_MT: Floats
    prompt: tuple[int, ...] = ()  # tokens of the text before
    language: str | None = None  # None: the model says
    among: tuple[str, ...] = ()  # which it may say; none: any
    words: bool = False  # whether each word's time is wanted


@dataclass(frozen=True, kw_only=True)
class SpokenWord:
    """A word; seconds count from the start of its window."""

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What lies between two time stamps; seconds count from the start of the window."""

    start_s: float
    end_s: float
    tokens: tuple[int, ...]
    words: tuple[SpokenWord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the model made of a window."""

    stretches: tuple[Stretch, ...]
    next_frame: int  # where the next window begins, from the start of this one
    avg_logprob: float  # natural log, over the tokens and the end
    no_speech_prob: float
    language: str

    @property
    def silent(self) -> bool:
        """Whether nothing was said."""
        return self.no_speech_prob > NO_SPEECH and self.avg_logprob <= UNSURE_LOGPROB


@dataclass(frozen=True, kw_only=True)
class Said:
    """A stretch with its place in the recording, and its window's evidence."""

    offset_s: float
    stretch: Stretch
    avg_logprob: float
    no_speech_prob: float


@dataclass(kw_only=True)
class Passage:
    """How far a recording is."""

    x_MT: Floats
    prompt: tuple[int, ...]
    language: str | None
    among: tuple[str, ...]
    words: bool
    at_frame: int = 0
    said: list[Said] = field(default_factory=list)

    @property
    def fraction(self) -> float:
        """How much of the recording was read, 0 to 1."""
        frames = self.x_MT.shape[1]
        return min(1.0, self.at_frame / frames) if frames else 1.0

    def next_window(self) -> Window | None:
        """The next stretch that may hold speech; None at the end."""
        while self.at_frame < self.x_MT.shape[1]:
            x_MT = self.x_MT[:, self.at_frame : self.at_frame + WINDOW_FRAMES]
            if not is_steady(levels_T(x_MT)):
                prompt = () if self.said else self.prompt
                return Window(
                    x_MT=x_MT, prompt=prompt, language=self.language, among=self.among,
                    words=self.words,
                )  # fmt: skip
            self.at_frame += x_MT.shape[1]
        return None

    def accept(self, reading: Reading) -> None:
        """Take what the model made of the window, and move on."""
        offset_s = self.at_frame * FRAME_S
        left = self.x_MT.shape[1] - self.at_frame
        self.language = reading.language
        if reading.silent:
            self.at_frame += min(WINDOW_FRAMES, left)
            return
        self.said += [
            Said(
                offset_s=offset_s,
                stretch=stretch,
                avg_logprob=reading.avg_logprob,
                no_speech_prob=reading.no_speech_prob,
            )
            for stretch in reading.stretches
        ]
        self.at_frame += max(1, reading.next_frame)


def split(
    tokens: Sequence[int], *, first_stamp: int, frames: int
) -> tuple[tuple[Stretch, ...], int]:
    """A window's stretches, and the frame from which the next window begins.

    Two stamps side by side end one stretch and begin the next. A text that breaks off after such a
    pair is left to the next window; with one stamp at its very end nothing follows in this one.
    """
    stamped = [token >= first_stamp for token in tokens]
    cuts = [at for at in range(1, len(tokens)) if stamped[at] and stamped[at - 1]]
    closed = len(tokens) >= 2 and stamped[-1] and not stamped[-2]
    if not cuts:
        stamps = [token - first_stamp for token in tokens if token >= first_stamp]
        end_s = stamps[-1] * STAMP_S if stamps and stamps[-1] else frames * FRAME_S
        return (Stretch(start_s=0.0, end_s=end_s, tokens=tuple(tokens)),), frames
    stretches, begin = [], 0
    for cut in [*cuts, *([len(tokens)] if closed else [])]:
        part = tokens[begin:cut]
        stretches.append(
            Stretch(
                start_s=(part[0] - first_stamp) * STAMP_S,
                end_s=(part[-1] - first_stamp) * STAMP_S,
                tokens=tuple(part),
            )
        )
        begin = cut
    if closed:
        return tuple(stretches), frames
    return tuple(stretches), (tokens[begin - 1] - first_stamp) * _STAMP_FRAMES
