"""A finished transcript without what a policy hides.

The answer is put together from fields that are known to be safe: one that the schema gains later
is left out until it is named here, so that no new field can carry what was hidden.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from serving import assemble
from serving.redaction.names import NameRecognizer
from serving.redaction.policy import Mode, RedactionPolicy
from serving.redaction.spans import INTRODUCED, Span, analyse
from serving.schema import Redaction, Segment, Transcript, Word

REBUILT_FIELDS = frozenset({"text", "words", "segments", "redactions"})
SAFE_FIELDS = frozenset(
    {"schema_version", "language", "duration_s", "model", "audio_digest", "timings_ms", "warnings",
     "normalisation", "degradation"}
)  # fmt: skip
SAFE_WORD_FIELDS = frozenset({"start", "end", "confidence", "speaker", "channel"})
SAFE_SEGMENT_FIELDS = SAFE_WORD_FIELDS | {"id", "avg_logprob", "no_speech_prob"}


def redact_transcript(
    transcript: Transcript, policy: RedactionPolicy, names: NameRecognizer = INTRODUCED
) -> Transcript:
    """Hide what the policy names in text, words and segments; times stay as they were."""
    if not policy:
        return transcript
    by_segment: dict[int, list[Word]] = {}
    found: list[Redaction] = []
    owners = _owners(transcript)
    for places in _channels(transcript.words):
        words = [transcript.words[place] for place in places]
        spans = analyse([word.word for word in words], policy, names).spans
        own = [owners[place] for place in places]
        for owner, word in hidden(words, spans, policy.mode, own):
            by_segment.setdefault(owner, []).append(word)
        found += redactions(words, spans)
    segments = [
        _segment(segment, by_segment[at])
        for at, segment in enumerate(transcript.segments)
        if by_segment.get(at)
    ]
    kept = [word for at in sorted(by_segment) for word in by_segment[at]]
    safe: dict[str, Any] = {
        name: getattr(transcript, name) for name in SAFE_FIELDS if name in Transcript.model_fields
    }
    return Transcript(
        **safe,
        text=assemble.joined(kept),
        words=tuple(kept),
        segments=tuple(segments),
        redactions=(*transcript.redactions, *sorted(found, key=lambda span: span.start)),
    )


def hidden(
    words: Sequence[Word], spans: Sequence[Span], mode: Mode, owners: Sequence[int]
) -> list[tuple[int, Word]]:
    """Each shown word with its owner (a segment): a span is one mask per owner, or nothing."""
    shown: list[tuple[int, Word]] = []
    at = 0
    for span in spans:
        shown += zip(owners[at : span.start], words[at : span.start], strict=True)
        if mode == "mask":
            for owner, places in groupby(range(span.start, span.end), lambda place: owners[place]):
                covered = [words[place] for place in places]
                shown.append((owner, mask(covered, span.kind)))
        at = span.end
    shown += zip(owners[at:], words[at:], strict=True)
    return shown


def mask(covered: Sequence[Word], kind: str) -> Word:
    """One word in place of several: it lasts as long as they did."""
    safe: dict[str, Any] = {
        name: getattr(covered[0], name) for name in SAFE_WORD_FIELDS if name in Word.model_fields
    }
    safe |= {"end": covered[-1].end, "confidence": min(word.confidence for word in covered)}
    return Word(**safe, word=f"[{kind.upper()}]")


def redactions(words: Sequence[Word], spans: Sequence[Span]) -> tuple[Redaction, ...]:
    """Where something was hidden, and of which kind; never what."""
    return tuple(
        Redaction(start=words[span.start].start, end=words[span.end - 1].end, kind=span.kind)
        for span in spans
    )


def _channels(words: Sequence[Word]) -> list[list[int]]:
    """Places of each channel's words: two speakers' numbers are not one number."""
    places: dict[int | None, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word.channel, []).append(place)
    return list(places.values())


def _owners(transcript: Transcript) -> list[int]:
    """The segment of each word."""
    owners = [
        at for at, segment in enumerate(transcript.segments) for _ in segment.words
    ]  # fmt: skip
    if len(owners) != len(transcript.words):  # no segments: nothing to keep apart
        return [0] * len(transcript.words)
    return owners


def _segment(segment: Segment, words: Sequence[Word]) -> Segment:
    safe: dict[str, Any] = {
        name: getattr(segment, name) for name in SAFE_SEGMENT_FIELDS if name in Segment.model_fields
    }
    return Segment(**safe, text=assemble.joined(words), words=tuple(words))
