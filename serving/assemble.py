"""From decoded frames to words in seconds, and from words to segments."""

from collections.abc import Sequence

from features.hypothesis import Hypothesis
from serving.schema import Segment, Word

PAUSE_S = 0.8  # a longer silence between two words begins a new segment
_SEGMENT_S = 15.0  # a longer segment ends at the next word
_DIGITS = 3


def timed_words(hypothesis: Hypothesis, *, offset_s: float, frame_s: float) -> list[Word]:
    """The words of a stretch that began ``offset_s`` into the recording."""
    return [
        Word(
            word=word.text,
            start=round(offset_s + word.start_frame * frame_s, _DIGITS),
            end=round(offset_s + word.end_frame * frame_s, _DIGITS),
            confidence=_rounded(word.confidence),
        )
        for word in hypothesis.words
    ]


def segments(words: Sequence[Word], *, pause_s: float = PAUSE_S) -> tuple[Segment, ...]:
    """Split at pauses; a very long stretch is split between words."""
    groups: list[list[Word]] = []
    for word in words:
        group = groups[-1] if groups else None
        if (
            group is None
            or word.start - group[-1].end > pause_s
            or word.end - group[0].start > _SEGMENT_S
        ):
            groups.append([word])
        else:
            group.append(word)
    return tuple(_segment(index, group) for index, group in enumerate(groups))


def joined(words: Sequence[Word]) -> str:
    """The text of words."""
    return " ".join(word.word for word in words)


def mean_confidence(words: Sequence[Word]) -> float:
    """Mean over words; none means nothing is claimed."""
    return _rounded(sum(word.confidence for word in words) / len(words)) if words else 0.0


def _segment(index: int, words: Sequence[Word]) -> Segment:
    return Segment(
        id=index,
        start=words[0].start,
        end=words[-1].end,
        text=joined(words),
        confidence=mean_confidence(words),
        words=tuple(words),
    )


def _rounded(confidence: float) -> float:
    return round(min(1.0, max(0.0, float(confidence))), 4)
