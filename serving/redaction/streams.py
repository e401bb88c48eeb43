"""Redaction of a live stream: nothing that may become personal is ever shown and then hidden.

In a partial, the open run at its end and every run of three digits or letters are masked at once.
In a final, a run that its end cuts is held back: its words come, hidden or clear, with the next
final, so that a number spoken over a pause is one number. The last final holds nothing back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from serving.redaction.names import NameRecognizer
from serving.redaction.policy import RedactionPolicy
from serving.redaction.spans import INTRODUCED, Analysis, Span, analyse
from serving.redaction.transcripts import hidden, redactions
from serving.schema import Redaction, Word

_CONTEXT_WORDS = 32  # before a run: where its announcement stands
_HELD_WORDS = 120  # a longer run is no number of anybody's


@dataclass(frozen=True, kw_only=True)
class Redacted:
    """What may be shown."""

    words: tuple[Word, ...]
    redactions: tuple[Redaction, ...]


class StreamRedactor:
    """Redaction state of one stream (of one channel)."""

    def __init__(self, policy: RedactionPolicy, names: NameRecognizer = INTRODUCED) -> None:
        self._policy = policy
        self._names = names
        self._context: list[Word] = []  # already shown, clear or hidden
        self._held: list[Word] = []

    @property
    def holds_back(self) -> bool:
        """Whether words wait for the next final."""
        return bool(self._held)

    def partial(self, words: Sequence[Word]) -> Redacted:
        """Show what is certain of an utterance that goes on; held words come first, masked."""
        heard = [*self._held, *words]
        analysis = self._analysis(heard)
        return self._shown(heard, self._own(analysis.pending))

    def final(self, words: Sequence[Word], *, last: bool = False) -> Redacted:
        """Show an utterance that is over but for a run that may go on in the next one."""
        heard = [*self._held, *words]
        analysis = self._analysis(heard)
        keep = max(0, analysis.open_from - len(self._context))
        if last or len(heard) - keep > _HELD_WORDS:
            keep = len(heard)
        self._held = heard[keep:]
        shown = heard[:keep]
        spans = [span for span in self._own(analysis.spans) if span.start < keep]
        self._context = [*self._context, *shown][-_CONTEXT_WORDS:]
        return self._shown(shown, spans)

    def _analysis(self, heard: Sequence[Word]) -> Analysis:
        words = [word.word for word in (*self._context, *heard)]
        return analyse(words, self._policy, self._names)

    def _own(self, spans: Sequence[Span]) -> list[Span]:
        """Spans among the words that were not shown yet."""
        before = len(self._context)
        return [
            replace(span, start=max(0, span.start - before), end=span.end - before)
            for span in spans
            if span.end > before
        ]

    def _shown(self, words: Sequence[Word], spans: Sequence[Span]) -> Redacted:
        shown = hidden(words, spans, self._policy.mode, [0] * len(words))
        return Redacted(words=tuple(word for _, word in shown), redactions=redactions(words, spans))
