"""However speech is cut into partials and finals, nothing personal is ever seen."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._pii import Line, Mark, leaks, read_suite, stream
from serving.redaction.kinds import luhn
from serving.redaction.policy import parse_policy
from serving.redaction.spans import analyse
from serving.redaction.streams import StreamRedactor
from serving.redaction.transcripts import redact_transcript
from serving.schema import ModelFacts, Segment, Transcript, Word

PCI, PII = parse_policy(["pci"]), parse_policy(["pii"])
_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
          "eighteen", "nineteen")  # fmt: skip
_TENS = {"2": "twenty", "3": "thirty", "4": "forty", "5": "fifty", "6": "sixty", "7": "seventy",
         "8": "eighty", "9": "ninety"}  # fmt: skip
_PLAIN = ("hello", "thanks", "coffee", "please", "window", "is", "my", "we", "want", "today")


@st.composite
def card_digits(draw: st.DrawFn) -> str:
    body = draw(st.sampled_from("3456")) + draw(st.text("0123456789", min_size=12, max_size=17))
    return next(body + last for last in "0123456789" if luhn(body + last))


@st.composite
def spoken(draw: st.DrawFn, digits: str) -> list[str]:
    """One of the many ways in which a number is said."""
    words: list[str] = []
    at = 0
    while at < len(digits):
        pair = digits[at : at + 2]
        ways = ["unit"]
        if len(pair) == 2:
            ways += ["double"] if pair[0] == pair[1] and at else []
            ways += ["teen"] if pair[0] == "1" else []
            ways += ["tens"] if pair[0] in _TENS else []
        way = draw(st.sampled_from(ways))
        if way == "unit":
            words.append(
                draw(st.sampled_from(["zero", "oh"])) if pair[0] == "0" else _UNITS[int(pair[0])]
            )
        elif way == "double":
            words += ["double", _UNITS[int(pair[0])]]
        elif way == "teen":
            words.append(_TEENS[int(pair[1])])
        else:
            words += [_TENS[pair[0]], *([] if pair[1] == "0" else [_UNITS[int(pair[1])]])]
        at += 1 if way == "unit" else 2
        if at % 4 == 0 and at < len(digits):
            words += draw(st.sampled_from([[], ["uh"], ["dash"], ["um", "then"]]))
    return words


@st.composite
def written(draw: st.DrawFn, digits: str) -> list[str]:
    gap = draw(st.sampled_from([" ", "-", ""]))
    return gap.join(digits[at : at + 4] for at in range(0, len(digits), 4)).split()


@st.composite
def card_lines(draw: st.DrawFn) -> Line:
    digits = draw(card_digits())
    number = draw(st.one_of(spoken(digits), written(digits)))
    before = draw(st.lists(st.sampled_from(_PLAIN), max_size=4))
    after = draw(st.lists(st.sampled_from(_PLAIN), max_size=3))
    mark = Mark(start=len(before), end=len(before) + len(number), kind="card")
    return Line(words=(*before, *number, *after), marks=(mark,), must=True)


def cuts_of(data: st.DataObject, line: Line) -> list[int]:
    places = st.integers(1, max(1, len(line.words) - 1))
    return sorted(data.draw(st.sets(places, max_size=6)))


def assert_nothing_leaks(line: Line, shown: Sequence[Sequence[Word]]) -> None:
    for words in shown:
        assert not leaks(line, words), (line.words, [word.word for word in words])


@settings(max_examples=150, deadline=None)
@given(line=card_lines(), data=st.data())
def test_no_digit_of_a_card_is_seen_for_any_split(line: Line, data: st.DataObject) -> None:
    assert_nothing_leaks(line, stream(line, cuts_of(data, line), PCI))


@settings(max_examples=200, deadline=None)
@given(line=st.sampled_from([line for line in read_suite() if line.must]), data=st.data())
def test_the_suite_leaks_in_no_partial_and_no_final(line: Line, data: st.DataObject) -> None:
    assert_nothing_leaks(line, stream(line, cuts_of(data, line), PII))


_MIXED = st.lists(
    st.sampled_from(
        (*_PLAIN, *_UNITS, "oh", "double", "twenty", "hundred", "dash", "to", "for", "and", "uh", "a",
         "i", "j", "o", "n", "at", "dot", "com", "card", "born", "may", "third", "email", "name",
         "jane", "4111", "12-34", "p", "m", "[CARD]", "security", "phone", "gmail")
    ),
    min_size=1, max_size=40,
)  # fmt: skip


def timed(words: Sequence[str]) -> list[Word]:
    return Line(words=tuple(words), marks=(), must=True).timed()


@settings(max_examples=200, deadline=None)
@given(words=_MIXED, data=st.data())
def test_finals_lose_no_word_and_repeat_none(words: list[str], data: st.DataObject) -> None:
    """Every word is in exactly one final: in clear, or under one mask's times."""
    line = Line(words=tuple(words), marks=(), must=True)
    redactor = StreamRedactor(PII)
    covered: list[int] = []
    begin = 0
    for end in [*cuts_of(data, line), len(words)]:
        final = redactor.final(line.timed()[begin:end], last=end == len(words))
        for word in final.words:
            covered += range(int(word.start), int(word.end) + 1)
        begin = end
    assert covered == list(range(len(words)))


def transcript_of(words: Sequence[str]) -> Transcript:
    said = timed(words)
    cut = len(said) // 2
    parts = [part for part in (said[:cut], said[cut:]) if part]
    segments = tuple(
        Segment(
            id=number,
            start=part[0].start,
            end=part[-1].end,
            text=" ".join(word.word for word in part),
            confidence=0.9,
            words=tuple(part),
        )
        for number, part in enumerate(parts)
    )
    return Transcript(
        text=" ".join(words),
        language="en",
        duration_s=float(len(words)),
        segments=segments,
        words=tuple(said),
        model=ModelFacts(name="m", version="1", variant="fp32", bundle_digest="sha256:0"),
        audio_digest="sha256:1",
    )


@settings(max_examples=200, deadline=None)
@given(words=_MIXED)
def test_text_words_and_segments_say_the_same_and_times_stay(words: list[str]) -> None:
    before = transcript_of(words)
    after = redact_transcript(before, PII)
    assert after.text == " ".join(word.word for word in after.words)
    assert after.text == " ".join(segment.text for segment in after.segments)
    assert after.words == tuple(word for segment in after.segments for word in segment.words)
    starts, ends = {w.start for w in before.words}, {w.end for w in before.words}
    assert all(word.start in starts and word.end in ends for word in after.words)
    assert [word.start for word in after.words] == sorted(word.start for word in after.words)
    removed = redact_transcript(before, parse_policy(["pii"], mode="remove"))
    assert set(removed.words) <= set(before.words)
    assert removed.redactions == after.redactions


@settings(max_examples=200, deadline=None)
@given(words=_MIXED)
def test_what_is_redacted_stays_as_it_is_when_redacted_again(words: list[str]) -> None:
    once = redact_transcript(transcript_of(words), PII)
    again = analyse([word.word for word in once.words], PII)
    assert not again.spans
