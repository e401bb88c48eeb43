"""The opening of ``/v1/listen``: a new stream, one that comes back, or one that another process began.

A client that asks for ``resumable=true`` gets the session's id in the answer's headers. It comes back
with that id, the number of the last message it has, and the place of its last final result; the
answer says from which byte to go on. Ids and places travel in headers: a query is logged by proxies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket

from serving.api.callers import caller_of, require_language, require_model, speaker_of
from serving.api.listen_query import ListenQuery
from serving.api.redaction_choice import choose_redaction
from serving.problems import ApiProblem
from serving.runtime import Runtime
from serving.streaming.redacted import RedactedSession, Session
from serving.streaming.resume import KeptStream, Place
from serving.streaming.segment import SegmentStart

SESSION_HEADER = "x-auricle-session"
SEQ_HEADER = "x-auricle-seq"
PLACE_HEADER = "x-auricle-resume"
FROM_BYTE_HEADER = "x-auricle-resume-from-byte"
FINALIZES_HEADER = "x-auricle-finalizes"
_GONE = ("failed", "drained")  # outcomes after which this process cannot go on
AWAY = ("abandoned", "superseded", "slow", "idle")  # outcomes after which the client may come back


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A stream with its place at the model, and how it came to be."""

    runtime: Runtime
    session: Session
    kept: KeptStream | None = None  # None: it ends with its connection
    missed: list[dict[str, Any]] = field(default_factory=list)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the answer to the upgrade says."""
        if self.kept is None:
            return []
        facts = {
            SESSION_HEADER: self.kept.id,
            FROM_BYTE_HEADER: str(self.kept.next_byte),
            FINALIZES_HEADER: str(self.kept.finalizes),
        }
        return [(name.encode(), value.encode()) for name, value in facts.items()]

    def close(self, outcome: str) -> None:
        """The connection ended: give the place back, or keep it for the client's return."""
        kept, keeper = self.kept, self.runtime.keeper
        if kept is None:
            self.session.close()
            return
        if outcome in _GONE or not self.runtime.ready:
            keeper.forget(kept)
        else:
            if outcome not in AWAY:
                keeper.settle(kept)
            keeper.leave(kept)
        kept.talking.release()


async def open_for(
    websocket: WebSocket, runtime: Runtime, query: ListenQuery, *, ends: float
) -> Opened:
    """Admit the client's stream; a refusal comes before the upgrade.

    A stream that comes back goes on with the model that it began with, whatever serves now.
    """
    request = query.stream_request(speaker_of(websocket))
    redaction = choose_redaction(websocket, query.redact, query.redact_mode, route="listen")
    policy = redaction.policy

    async def opened(begins: Sequence[SegmentStart] | None = None) -> Session:
        if query.model:
            require_model(query.model, runtime)
        require_language(query.language, runtime)
        session = await runtime.open_stream(request, begins)
        return RedactedSession(session, policy) if policy else session

    if not query.resumable:
        return Opened(runtime=runtime, session=await opened())
    tenant = caller_of(websocket).tenant
    if (again := await _returned(websocket, runtime, tenant)) is not None:
        return again
    place = _place(websocket, runtime, query)
    begins = place.begins if place is not None else None
    session = await opened(begins)
    kept = KeptStream(session, tenant, ends=ends, seq=place.seq if place is not None else 0)
    runtime.keeper.add(kept)
    await kept.claim()
    return Opened(runtime=runtime, session=session, kept=kept)


async def _returned(websocket: WebSocket, runtime: Runtime, tenant: str) -> Opened | None:
    """The stream that this process kept for the client."""
    session = websocket.headers.get(SESSION_HEADER, "")
    kept = runtime.keeper.find(session, tenant)
    if kept is None or not runtime.ready:
        return None
    await kept.claim()
    missed = kept.missed(_last_seq(websocket))
    if runtime.keeper.find(session, tenant) is None or missed is None:
        runtime.keeper.forget(kept)
        kept.talking.release()
        return None
    return Opened(runtime=runtime, session=kept.session, kept=kept, missed=missed)


def _last_seq(websocket: WebSocket) -> int:
    text = websocket.headers.get(SEQ_HEADER, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ApiProblem(400, f"`{SEQ_HEADER}` must be a whole number.", param=SEQ_HEADER)
    return int(text)


def _place(websocket: WebSocket, runtime: Runtime, query: ListenQuery) -> Place | None:
    """Where a stream of another process goes on; None: at its beginning."""
    text = websocket.headers.get(PLACE_HEADER)
    if not text:
        return None
    request = query.stream_request(None)
    if not request.enterable:
        raise ApiProblem(
            400, "Audio in a container cannot be taken up elsewhere.", param=PLACE_HEADER
        )
    mel_bins = runtime.recognizer.config.feature_spec.mel_bins
    return Place.from_text(text, channels=request.rows, mel_bins=mel_bins)
