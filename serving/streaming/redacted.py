"""A live stream whose client never sees what a policy hides. It outlives a connection as any does."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

from serving import assemble
from serving.redaction.names import NameRecognizer
from serving.redaction.policy import RedactionPolicy
from serving.redaction.spans import INTRODUCED
from serving.redaction.streams import StreamRedactor
from serving.streaming.events import Event, StreamEvent
from serving.streaming.streams import LiveStream


class Session(Protocol):
    """What a conversation needs of a stream."""

    live: LiveStream

    def accept(self, content: bytes) -> AsyncIterator[Event]:
        """Take bytes; give events."""

    def conclude(self, *, last: bool) -> AsyncIterator[Event]:
        """Make everything heard so far final."""

    def close(self) -> None:
        """Give the stream's place back."""


class RedactedSession:
    """A session whose events are redacted, each channel by itself."""

    def __init__(
        self, session: Session, policy: RedactionPolicy, names: NameRecognizer = INTRODUCED
    ) -> None:
        self.live = session.live
        self._session = session
        self._redactors = [StreamRedactor(policy, names) for _ in range(session.live.request.rows)]

    async def accept(self, content: bytes) -> AsyncIterator[Event]:
        """Take bytes; give what of the events may be shown."""
        async for event in self._session.accept(content):
            yield self._shown(event, last=False)

    async def conclude(self, *, last: bool) -> AsyncIterator[Event]:
        """At the stream's end what was held back is shown too, hidden or clear."""
        if not last:
            async for event in self._session.conclude(last=False):
                yield self._shown(event, last=False)
            return
        events = [event async for event in self._session.conclude(last=True)]
        ends = {event.channel: at for at, event in enumerate(events) if _is_final(event)}
        for at, event in enumerate(events):
            yield self._shown(event, last=ends.get(event.channel) == at)

    def close(self) -> None:
        """Give the stream's place back."""
        self._session.close()

    def _shown(self, event: Event, *, last: bool) -> Event:
        if not isinstance(event, StreamEvent):
            return event
        redactor = self._redactors[event.channel]
        shown = (
            redactor.final(event.words, last=last)
            if event.is_final
            else redactor.partial(event.words)
        )
        begins = [event.start_s, *(word.start for word in shown.words[:1])]
        return replace(
            event,
            words=shown.words,
            text=assemble.joined(shown.words),
            confidence=assemble.mean_confidence(shown.words),
            start_s=min(begins),
            redactions=shown.redactions,
            # Whoever takes the stream up elsewhere must hear again what was held back here.
            resume=None if redactor.holds_back else event.resume,
        )


def _is_final(event: Event) -> bool:
    return isinstance(event, StreamEvent) and event.is_final
