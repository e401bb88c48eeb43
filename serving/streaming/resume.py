"""Streams that outlive their connection.

A resumable stream numbers what it tells (``seq``) and says with every final result which bytes it
will never need again (``ack_byte``). After an abrupt disconnect this process keeps the stream for a
while: the client comes back with the session's id and the last number it has, hears what it missed
and goes on at the very byte that was received last. A connection that comes back fences the one
before it, which may not have noticed that it is dead.

Another process knows nothing of the session. To it the client shows the `Place` of its last final
result, and sends the audio again from there: a final result is where decoding begins anew, so the
words are the same. Audio in a container cannot be entered in the middle and has no place.
"""

import asyncio
import base64
import binascii
import json
import secrets
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.voice import VoiceState
from serving.problems import ApiProblem
from serving.streaming.events import Event, StreamEvent
from serving.streaming.redacted import Session
from serving.streaming.segment import SegmentStart

_MISSED_MESSAGES = 256  # kept for a client that comes back; one that missed more shows its place
_PLACE_CHARACTERS = 8_000  # of a header; eight channels take 6,000
_LONGEST = 1 << 48  # samples and bytes; a number beyond it is made up
_MOST_ABSENT = 128  # streams, running or ended, that are kept for clients that may come back
_APART = 1 << 23  # samples by which channels may differ: what is heard for one is held for all
_LEAD_LIMIT = 1_000
_MEAN_LIMIT = 1_000.0  # no log-mel is so large


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stream can be taken up again by a process that does not know it."""

    seq: int  # of the final result that made it
    begins: tuple[SegmentStart, ...]  # one per channel

    def to_text(self) -> str:
        """A header's worth of ASCII. It holds nothing that the client's own audio does not."""
        document = {"seq": self.seq, "begins": [_packed(begin) for begin in self.begins]}
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()

    @classmethod
    def from_text(cls, text: str, *, channels: int, mel_bins: int) -> "Place":
        """Read what a client shows; it is trusted with nothing but its own transcript."""
        try:
            if len(text) > _PLACE_CHARACTERS:
                raise ValueError("too long")
            document = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
            begins = tuple(_unpacked(entry, mel_bins) for entry in document["begins"])
            seq = _whole(document["seq"], _LONGEST)
            bases = [begin.base for begin in begins]
            if len(begins) != channels or max(bases) - min(bases) > _APART:
                raise ValueError("channels")
        except (ValueError, LookupError, TypeError, RecursionError, binascii.Error):
            raise ApiProblem(
                400, "The place to resume from cannot be read.", param="resume", code="bad_place"
            ) from None
        return cls(seq=seq, begins=begins)


class KeptStream:
    """A stream and what its client may have missed. One connection at a time talks over it."""

    def __init__(self, session: Session, tenant: str, *, ends: float, seq: int = 0) -> None:
        self.id = secrets.token_urlsafe(24)
        self.session, self.tenant, self.ends, self.seq = session, tenant, ends, seq
        self.finalizes = 0  # of the client, done
        self.over = False  # everything was told; the session is closed
        self.fenced = asyncio.Event()  # of the connection that talks now
        self.talking = asyncio.Lock()
        self._coming = 0  # connections that wait to talk
        self.expiry: asyncio.TimerHandle | None = None
        self._begins = list(session.live.begins)
        self._told: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_MISSED_MESSAGES)

    async def claim(self) -> None:
        """Become the connection that talks; the one before ends first."""
        self._coming += 1
        self.fenced.set()
        try:
            await self.talking.acquire()
        finally:
            self._coming -= 1
        self.fenced = asyncio.Event()
        if self._coming:  # yet another one is at the door
            self.fenced.set()
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None

    @property
    def next_byte(self) -> int:
        """The first byte that was not received."""
        return self.session.live.bytes_heard

    def number(self, message: dict[str, Any], event: Event | None, *, provisional: bool) -> None:
        """Give a message its number and keep it; a final result says what it settles.

        A provisional one settles nothing: the process stops in the middle of an utterance, which
        another one will hear again.
        """
        self.seq += 1
        extension: dict[str, Any] = {"seq": self.seq, "ack_byte": None}
        if isinstance(event, StreamEvent) and event.resume is not None and not provisional:
            self._begins[event.channel] = event.resume
            if (size := self.session.live.frame_bytes) is not None:
                place = Place(seq=self.seq, begins=tuple(self._begins))
                extension["resume"] = place.to_text()
                extension["ack_byte"] = size * min(begin.base for begin in self._begins)
            else:
                extension["ack_byte"] = self.next_byte
        if provisional:
            extension["provisional"] = True
        message["auricle"] = {**message.get("auricle", {}), **extension}
        self._told.append((self.seq, message))

    def missed(self, after_seq: int) -> list[dict[str, Any]] | None:
        """What was told after ``after_seq``; None when it is no longer known."""
        oldest = self._told[0][0] if self._told else self.seq + 1
        if not oldest - 1 <= after_seq <= self.seq:
            return None
        return [message for seq, message in self._told if seq > after_seq]


class StreamKeeper:
    """The resumable streams of this process."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._streams: dict[str, KeptStream] = {}  # the longest absent first

    def add(self, kept: KeptStream) -> None:
        """Know a new stream."""
        self._streams[kept.id] = kept

    def find(self, session: str, tenant: str) -> KeptStream | None:
        """The stream of that id, if it is this tenant's."""
        kept = self._streams.get(session)
        return kept if kept is not None and kept.tenant == tenant else None

    def leave(self, kept: KeptStream) -> None:
        """The connection ended: keep the stream for a while, in case that it comes back."""
        if kept.id not in self._streams:
            return
        self._streams[kept.id] = self._streams.pop(kept.id)
        loop = asyncio.get_running_loop()
        kept.expiry = loop.call_later(self._keep_s, self.forget, kept)
        absent = [one for one in self._streams.values() if one.expiry is not None]
        for one in absent[:-_MOST_ABSENT]:
            self.forget(one)

    def forget(self, kept: KeptStream) -> None:
        """Give up the stream and its place at the model."""
        if kept.expiry is not None:
            kept.expiry.cancel()
            kept.expiry = None
        if self._streams.pop(kept.id, None) is not None:
            self.settle(kept)

    def settle(self, kept: KeptStream) -> None:
        """The stream has ended: its place is free, what it told can still be asked for."""
        if not kept.over:
            kept.over = True
            kept.session.close()

    def forget_absent(self, most: int | None = None) -> int:
        """Give up streams that nobody is connected to, the longest absent first."""
        absent = [one for one in self._streams.values() if one.expiry is not None and not one.over]
        for kept in absent[:most]:
            self.forget(kept)
        return len(absent[:most])


def _packed(begin: SegmentStart) -> dict[str, Any]:
    voice = begin.voice
    return {
        "base": begin.base,
        "lead": begin.lead_frames,
        "mean": base64.b64encode(np.array(begin.mean, "<f4").tobytes()).decode(),
        "frames": begin.mean_frames,
        "voice": None if voice is None else [voice.floor, voice.level, voice.run],
        "word_end": begin.last_word_end_s,
    }


def _unpacked(entry: dict[str, Any], mel_bins: int) -> SegmentStart:
    mean_F = np.frombuffer(base64.b64decode(entry["mean"], validate=True), "<f4")
    if mean_F.shape != (mel_bins,) or not (np.abs(mean_F) < _MEAN_LIMIT).all():
        raise ValueError("mean")
    voice, word_end = entry["voice"], entry["word_end"]
    return SegmentStart(
        base=_whole(entry["base"], _LONGEST),
        lead_frames=_whole(entry["lead"], _LEAD_LIMIT),
        mean=tuple(mean_F.tolist()),
        mean_frames=_whole(entry["frames"], _LONGEST),
        voice=None
        if voice is None
        else VoiceState(
            floor=_number(voice[0]), level=_number(voice[1]), run=_whole(voice[2], _LONGEST)
        ),
        last_word_end_s=None if word_end is None else _number(word_end),
    )


def _whole(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError("number")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not abs(value) < 1e9:
        raise ValueError("number")
    return float(value)
