"""SubRip and WebVTT: well-formed for every transcript, readable, and nothing said is lost."""

import html
import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api import subtitles
from serving.assemble import joined, segments
from serving.schema import ModelFacts, Segment, Transcript, Word

FACTS = ModelFacts(name="m", version="1", variant="fp32", bundle_digest="sha256:0")
TIME = r"(\d\d+):([0-5]\d):([0-5]\d)%s(\d{3})"


def transcript_of(words: list[Word], duration_s: float, channel: int | None = None) -> Transcript:
    parts = tuple(part.model_copy(update={"channel": channel}) for part in segments(words))
    return Transcript(
        text=joined(words), language="en", duration_s=duration_s, segments=parts,
        words=tuple(words), model=FACTS, audio_digest="sha256:0",
    )  # fmt: skip


def milliseconds(parts: tuple[str, ...]) -> int:
    hours, minutes, seconds, rest = (int(part) for part in parts)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def parsed(document: str, point: str) -> list[tuple[int, int, list[str]]]:
    """Cues as a strict reader sees them: blocks of a time line and text lines."""
    times = re.compile(TIME % point + " --> " + TIME % point)
    found = []
    for block in filter(None, document.split("\n\n")):
        lines = block.split("\n")
        while not times.fullmatch(lines[0]):
            assert lines[0] == "WEBVTT" or lines[0].isdigit(), lines[0]
            lines = lines[1:]
            if not lines:
                break
        else:
            match = times.fullmatch(lines[0])
            assert match is not None and len(lines) > 1
            parts = match.groups()
            found.append((milliseconds(parts[:4]), milliseconds(parts[4:]), lines[1:]))
    return found


texts = st.text(alphabet="abcdefghij'&<>-[]\n", min_size=1, max_size=50).filter(
    lambda text: text.strip() == text and text.split() == [text]
)


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    at, words = draw(st.floats(0, 5_000)), []
    for text in draw(st.lists(texts, max_size=40)):
        at += draw(st.floats(0, 2.0))
        end = at + draw(st.floats(0.0, 1.5))
        words.append(Word(word=text, start=round(at, 3), end=round(end, 3), confidence=0.5))
        at = end
    return words


@settings(max_examples=150, deadline=None)
@given(words=spoken())
def test_cues_are_in_order_short_and_hold_every_word(words: list[Word]) -> None:
    transcript = transcript_of(words, words[-1].end if words else 1.0)
    document = subtitles.vtt(transcript)
    assert document.startswith("WEBVTT\n\n")
    cues = parsed(document, r"\.")
    said = [html.unescape(text) for _, _, lines in cues for line in lines for text in line.split()]
    assert said == [word.word for word in words]
    for start_ms, end_ms, lines in cues:
        assert start_ms < end_ms and len(lines) <= 2
        assert not any("<" in line or ">" in line for line in lines)
        for line in map(html.unescape, lines):
            assert len(line) <= subtitles.LINE_CHARACTERS or " " not in line
        longest = max((word.end - word.start for word in words), default=0.0)
        assert end_ms - start_ms <= 1000 * max(subtitles.CUE_S, longest) + 1
    for (_, end_ms, _), (start_ms, _, _) in itertools.pairwise(cues):
        assert end_ms <= max(start_ms, 1)
    numbers = [line for line in subtitles.srt(transcript).split("\n") if line.isdigit()]
    assert numbers == [str(number + 1) for number in range(len(cues))]
    as_srt = parsed(subtitles.srt(transcript), ",")
    assert [cue[:2] for cue in as_srt] == [cue[:2] for cue in cues]


def word(text: str, start: float, end: float) -> Word:
    return Word(word=text, start=start, end=end, confidence=0.9)


def test_what_a_player_reads() -> None:
    words = [
        word("a", 3599.5, 3599.75),
        word("tea", 3600.0, 3600.5),
        word("please", 3700.0, 3700.1),
    ]
    transcript = transcript_of(words, 3702.0)
    assert subtitles.srt(transcript) == (
        "1\n00:59:59,500 --> 01:00:00,500\na tea\n\n2\n01:01:40,000 --> 01:01:41,000\nplease\n\n"
    )
    assert subtitles.vtt(transcript_of([word("<b>&", 0.0, 0.5)], 9.0, channel=1)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<v channel 1>&lt;b&gt;&amp;\n\n"
    )
    assert subtitles.vtt(transcript_of([], 3.0)) == "WEBVTT\n\n"
    assert subtitles.srt(transcript_of([], 3.0)) == ""


def test_a_long_cue_is_broken_evenly() -> None:
    words = [word(text, at * 0.2, at * 0.2 + 0.1) for at, text in enumerate(["quite"] * 9)]
    (cue,) = subtitles.cues(transcript_of(words, 9.0))
    assert [len(line) for line in cue.lines] == [29, 23]


def test_segments_keep_their_channels() -> None:
    part = Segment(
        id=0, start=0.0, end=0.5, text="a", confidence=0.5, words=(word("a", 0.0, 0.5),), channel=1
    )
    transcript = transcript_of([], 3.0).model_copy(update={"segments": (part,)})
    assert "[channel 1] a\n" in subtitles.srt(transcript)
