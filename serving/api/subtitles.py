"""SubRip and WebVTT of a transcript: cues of at most two lines that can be read in their time.

A cue never crosses a segment, so it never spans a long pause, and cues of one channel never
overlap. SubRip has no escapes: what would end a cue there is changed; WebVTT's are used.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serving.schema import Segment, Transcript, Word

LINE_CHARACTERS = 42  # as subtitlers count; a longer word stands alone on its line
CUE_LINES = 2
CUE_S = 7.0  # longest
_SHOWN_S = 1.0  # shortest, where the next cue leaves room
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, kw_only=True)
class Cue:
    """One caption."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    channel: int | None


def srt(transcript: Transcript) -> str:
    """SubRip; nothing said is an empty file."""
    blocks = []
    for number, cue in enumerate(cues(transcript), start=1):
        times = f"{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}"
        lines = [line.replace("-->", "->") for line in cue.lines]
        if cue.channel is not None:
            lines[0] = f"[channel {cue.channel}] {lines[0]}"
        blocks.append("\n".join([str(number), times, *lines]))
    return "".join(f"{block}\n\n" for block in blocks)


def vtt(transcript: Transcript) -> str:
    """WebVTT; a channel is a voice."""
    blocks = ["WEBVTT"]
    for cue in cues(transcript):
        times = f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}"
        lines = [line.translate(_ESCAPES) for line in cue.lines]
        if cue.channel is not None:
            lines[0] = f"<v channel {cue.channel}>{lines[0]}"
        blocks.append("\n".join([times, *lines]))
    return "".join(f"{block}\n\n" for block in blocks)


def cues(transcript: Transcript) -> list[Cue]:
    """Cues in order of time."""
    raw = [
        (words, segment.channel) for segment in transcript.segments for words in _groups(segment)
    ]
    end_ms = round(transcript.duration_s * 1000)
    next_ms: dict[int | None, int] = {}
    made = []
    for words, channel in reversed(raw):
        start_ms = round(words[0].start * 1000)
        last_ms = max(round(words[-1].end * 1000), start_ms + 1)
        room_ms = max(next_ms.get(channel, end_ms), start_ms + 1)
        made.append(
            Cue(
                start_ms=start_ms,
                end_ms=min(max(last_ms, start_ms + round(_SHOWN_S * 1000)), room_ms),
                lines=tuple(_lines([_SPACES.sub(" ", word.word) for word in words])),
                channel=channel,
            )
        )
        next_ms[channel] = start_ms
    return made[::-1]


def _groups(segment: Segment) -> Iterator[Sequence[Word]]:
    """The words of each cue: as many as fit, shared evenly so that no word is left alone."""
    rest = list(segment.words)
    while rest:
        fits = _fitting(rest)
        if fits < len(rest):
            parts = -(-len(rest) // fits)
            fits = min(fits, -(-len(rest) // parts))
        yield rest[:fits]
        rest = rest[fits:]


def _fitting(words: Sequence[Word]) -> int:
    count = 0
    for count in range(1, len(words) + 1):
        texts = [word.word for word in words[: count + 1]]
        if count == len(words) or words[count].end - words[0].start > CUE_S:
            break
        if len(_wrapped(texts, LINE_CHARACTERS)) > CUE_LINES:
            break
    return count


def _lines(texts: Sequence[str]) -> list[str]:
    """One line where it fits, otherwise the most even break."""
    lines = _wrapped(texts, LINE_CHARACTERS)
    for width in range(LINE_CHARACTERS - 1, 0, -1):
        narrower = _wrapped(texts, width)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return lines


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 1 + len(text) <= width:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def _clock(time_ms: int, point: str) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"
