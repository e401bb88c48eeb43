"""What redaction finds, what it leaves alone, and what a live listener is shown meanwhile."""

from collections.abc import Sequence

import pytest

from benchmarks._pii import Line, Mark, found_spans, read_line, read_suite, stream
from serving.redaction.kinds import iban_holds, luhn
from serving.redaction.names import IntroducedNames, ListedNames
from serving.redaction.policy import NAMES, RedactionPolicy, UnknownKind, parse_policy
from serving.redaction.spans import analyse
from serving.redaction.streams import StreamRedactor
from serving.redaction.transcripts import (
    REBUILT_FIELDS,
    SAFE_FIELDS,
    SAFE_SEGMENT_FIELDS,
    SAFE_WORD_FIELDS,
    redact_transcript,
)
from serving.schema import ModelFacts, Segment, Transcript, Word

PII = parse_policy(["pii"])


def said(words: Sequence[Word]) -> str:
    return " ".join(word.word for word in words)


def timed(text: str) -> list[Word]:
    return Line(words=tuple(text.split()), marks=(), must=True).timed()


def redacted(text: str, *redact: str, mode: str = "mask") -> str:
    policy = parse_policy(redact or ["pii"], mode=mode)  # type: ignore[arg-type]
    return said(StreamRedactor(policy).final(timed(text), last=True).words)


@pytest.mark.parametrize("line", read_suite(), ids=lambda line: " ".join(line.words)[:60])
def test_the_suite_is_found_with_its_kinds_and_the_rest_stays(line: Line) -> None:
    found = found_spans(line, PII)
    if line.must:
        assert found == list(line.marks)
    else:
        assert all(
            any(span.start < m.end and m.start < span.end for m in line.marks) for span in found
        )


@pytest.mark.parametrize(
    ("redact", "expected"),
    [
        ("pci", "card [CARD] phone five five five oh one nine nine with two at ten"),
        ("credit_card,phone", "card [CARD] phone [PHONE] with two at ten"),
        ("numbers", "card [NUMBER] phone [NUMBER] with two at ten"),
        ("aggressive_numbers", "card [ANY_NUMBER] phone [ANY_NUMBER] with [ANY_NUMBER] at [ANY_NUMBER]"),
        ("false", "card {card} phone five five five oh one nine nine with two at ten"),
    ],
)  # fmt: skip
def test_the_policy_decides_what_is_hidden(redact: str, expected: str) -> None:
    card = "four one one one one one one one one one one one one one one one"
    text = f"card {card} phone five five five oh one nine nine with two at ten"
    assert redacted(text, redact) == expected.replace("{card}", card)


def test_removed_words_leave_nothing_behind() -> None:
    assert redacted("call five five five oh one nine nine please", mode="remove") == "call please"


def test_deepgrams_names_and_ours_are_read_and_others_refused() -> None:
    assert parse_policy(["pci", "ssn, numbers"]).kinds == {"card", "cvv", "expiry", "ssn", "number"}
    assert not parse_policy(["false"]) and not parse_policy([])
    assert all(parse_policy([name]) for name in NAMES)
    with pytest.raises(UnknownKind, match="`shoe_size` is none of"):
        parse_policy(["pci,shoe_size"])
    with pytest.raises(UnknownKind):
        RedactionPolicy(kinds=frozenset({"pci"}))


def test_check_digits() -> None:
    assert luhn("4111111111111111") and not luhn("4111111111111112") and not luhn("")
    assert iban_holds("de89370400440532013000") and not iban_holds("de88370400440532013000")


def test_an_open_run_is_masked_at_once_and_resolved_in_the_final() -> None:
    redactor = StreamRedactor(parse_policy(["pci"]))
    assert said(redactor.partial(timed("a table for four")).words) == "a table for [REDACTED]"
    assert said(redactor.partial(timed("a table for four please")).words).startswith(
        "a table for [RED"
    )
    assert said(redactor.final(timed("a table for four please"), last=True).words) == (
        "a table for four please"
    )


def test_a_number_spoken_over_pauses_is_one_number_of_the_last_final() -> None:
    line = read_line(
        "it is {card:four one one one one one one one one one one one one one one one} ok so"
    )
    finals = []
    redactor = StreamRedactor(parse_policy(["pci"]))
    words = line.timed()
    for begin, end in ((0, 6), (6, 10), (10, len(words))):
        finals.append(redactor.final(words[begin:end], last=end == len(words)))
    assert [said(final.words) for final in finals] == ["it is", "", "[CARD] ok so"]
    (found,) = finals[-1].redactions
    assert (found.kind, found.start, found.end) == ("card", 2.0, 17.9)


def test_what_was_held_back_and_is_harmless_comes_with_the_next_final() -> None:
    redactor = StreamRedactor(parse_policy(["pci"]))
    assert said(redactor.final(timed("a table for four")).words) == "a table for"
    following = redactor.final(timed("thanks a lot indeed"), last=True)
    assert said(following.words) == "four thanks a lot indeed"
    assert following.words[0].start == 3.0  # its own time, before those of its utterance


def test_an_announcement_counts_over_a_pause() -> None:
    redactor = StreamRedactor(PII)
    assert said(redactor.final(timed("my security code is")).words) == "my security code is"
    assert said(redactor.final(timed("one two three"), last=True).words) == "[CVV]"


def test_an_endless_run_is_not_held_for_ever() -> None:
    redactor = StreamRedactor(parse_policy(["numbers"]))
    finals = [redactor.final(timed("one two three four five six seven eight")) for _ in range(40)]
    assert any(final.words for final in finals)
    assert all(word.word == "[NUMBER]" for final in finals for word in final.words)


def test_an_address_is_hidden_before_its_at_is_heard() -> None:
    for words in stream(
        read_line("my email is {email:anna maria at example dot com} thanks"), [], PII
    ):
        assert not {"anna", "maria", "example"} & {word.word for word in words}


def test_names_come_from_a_recogniser_that_can_be_exchanged() -> None:
    listed, policy = ListedNames({"Sandra"}), parse_policy(["name"])
    words = ["i", "spoke", "with", "sandra", "yesterday"]
    assert not analyse(words, policy, IntroducedNames()).spans
    (span,) = analyse(words, policy, listed).spans
    assert (span.start, span.end, span.kind) == (3, 4, "name")
    final = StreamRedactor(policy, listed).final(timed(" ".join(words)), last=True)
    assert said(final.words) == "i spoke with [NAME] yesterday"


def test_every_field_of_a_transcript_is_known_to_be_safe_or_is_rebuilt() -> None:
    """A field that the schema gains is left out of redacted answers until somebody decides."""
    assert set(Transcript.model_fields) <= SAFE_FIELDS | REBUILT_FIELDS
    assert set(Segment.model_fields) <= SAFE_SEGMENT_FIELDS | {"text", "words"}
    assert set(Word.model_fields) <= SAFE_WORD_FIELDS | {"word"}


def test_a_span_over_a_pause_is_masked_in_both_segments() -> None:
    words = timed("it is five five five oh one nine nine thanks")
    parts = (words[:5], words[5:])
    transcript = Transcript(
        text=said(words), language="en", duration_s=10.0, words=tuple(words),
        segments=tuple(
            Segment(id=at, start=part[0].start, end=part[-1].end, text=said(part), confidence=0.9,
                    words=tuple(part))
            for at, part in enumerate(parts)
        ),
        model=ModelFacts(name="m", version="1", variant="fp32", bundle_digest="sha256:0"),
        audio_digest="sha256:1",
    )  # fmt: skip
    after = redact_transcript(transcript, PII)
    assert [segment.text for segment in after.segments] == ["it is [PHONE]", "[PHONE] thanks"]
    assert [(r.kind, r.start, r.end) for r in after.redactions] == [("phone", 2.0, 8.9)]
    assert redact_transcript(transcript, parse_policy([])) is transcript
    whole = redact_transcript(transcript, parse_policy(["pii"], mode="remove"))
    assert whole.text == "it is thanks" and len(whole.segments) == 2


def test_marks_of_the_suite_are_read() -> None:
    line = read_line("? ask {name:tom baker} today")
    assert line.words == ("ask", "tom", "baker", "today") and not line.must
    assert line.marks == (Mark(start=1, end=3, kind="name"),)


def test_speakers_of_their_own_channels_do_not_finish_each_others_numbers() -> None:
    one = [
        word.model_copy(update={"channel": 0}) for word in timed("five five five oh one nine nine")
    ]
    two = [
        word.model_copy(update={"channel": 1, "start": word.start + 0.5, "end": word.end + 0.5})
        for word in timed("no thank you it is fine really")
    ]
    words = sorted([*one, *two], key=lambda word: word.start)
    segments = tuple(
        Segment(id=word.channel or 0, start=word.start, end=word.end, text=word.word, confidence=0.9,
                words=(word,), channel=word.channel)
        for word in words
    )  # fmt: skip
    transcript = Transcript(
        text=said(words), language="en", duration_s=10.0, words=tuple(words), segments=segments,
        model=ModelFacts(name="m", version="1", variant="fp32", bundle_digest="sha256:0"),
        audio_digest="sha256:1",
    )  # fmt: skip
    after = redact_transcript(transcript, PII)
    assert {word.word for word in after.words if word.channel == 0} == {"[PHONE]"}
    assert [word.word for word in after.words if word.channel == 1] == [word.word for word in two]
