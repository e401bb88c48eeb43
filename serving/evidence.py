"""What a recording's words rest on: the log-probabilities of their letters, and of silence instead.

A word is heard in some frames of the model. Its letters each have the log-probability of the frame
in which they came out; the same frames also say how likely it is that no letter was there at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.hypothesis import Hypothesis
from features.tokens import BLANK, TokenTable
from serving import assemble
from serving.schema import Segment, Word

_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One token of the model as it stands in the text."""

    text: str
    logp: float  # natural log


@dataclass(frozen=True, kw_only=True)
class HeardWord:
    """A word and its evidence."""

    word: Word
    logp: float  # natural log, summed over its letters
    silence_logp: float  # ln of the chance that its frames hold no letter
    letters: tuple[Letter, ...] = ()  # where they are wanted; a space before the word leads


def heard_words(
    hypothesis: Hypothesis,
    logp_TV: NDArray[np.floating],
    table: TokenTable,
    *,
    offset_s: float,
    frame_s: float,
    channel: int | None = None,
    spelling: bool = False,
) -> list[HeardWord]:
    """The words of a stretch that began ``offset_s`` into the recording; ``spelling`` adds letters.

    The space before the first word is not the model's: its log-probability is 0.
    """
    timed = assemble.timed_words(hypothesis, offset_s=offset_s, frame_s=frame_s)
    logp_U = np.minimum(logp_TV[list(hypothesis.frames), list(hypothesis.tokens)], 0.0).tolist()
    silence_T = np.logaddexp(logp_TV[:, BLANK], logp_TV[:, table.space]).astype(np.float64)
    heard, at = [], 0
    for word, span in zip(timed, hypothesis.words, strict=True):
        end = at + len(span.text)
        silence = float(silence_T[span.start_frame : span.end_frame].sum())
        letters = [Letter(text=" ", logp=logp_U[at - 1] if at else 0.0)]
        letters += [
            Letter(text=text, logp=logp)
            for text, logp in zip(span.text, logp_U[at:end], strict=True)
        ]
        heard.append(
            HeardWord(
                word=word.model_copy(update={"channel": channel}),
                logp=sum(logp_U[at:end]),
                silence_logp=min(silence, 0.0),
                letters=tuple(letters) if spelling else (),
            )
        )
        at = end + 1
    return heard


def heard_segments(
    heard: Sequence[HeardWord], *, pause_s: float = assemble.PAUSE_S
) -> tuple[Segment, ...]:
    """Segments in order of time, each of one channel."""
    by_channel: dict[int | None, list[HeardWord]] = {}
    for entry in heard:
        by_channel.setdefault(entry.word.channel, []).append(entry)
    segments = [
        segment
        for entries in by_channel.values()
        for segment in _channel_segments(entries, pause_s)
    ]
    segments.sort(key=lambda segment: (segment.start, segment.channel or 0))
    return tuple(segment.model_copy(update={"id": index}) for index, segment in enumerate(segments))


def _channel_segments(heard: Sequence[HeardWord], pause_s: float) -> list[Segment]:
    segments, at = [], 0
    for segment in assemble.segments([entry.word for entry in heard], pause_s=pause_s):
        entries = heard[at : at + len(segment.words)]
        at += len(entries)
        letters = sum(len(entry.word.word) for entry in entries)
        evidence = {
            "channel": entries[0].word.channel,
            "avg_logprob": round(sum(entry.logp for entry in entries) / letters, _DIGITS),
            "no_speech_prob": float(np.exp(sum(entry.silence_logp for entry in entries))),
        }
        segments.append(segment.model_copy(update=evidence))
    return segments
