"""Opus in Ogg from a live connection: pages become packets, packets samples (RFC 3533, RFC 7845).

A page is decoded when its last byte is there, so the cut of the bytes changes nothing. Streams may
follow each other (a recorder that was restarted); other codecs in Ogg are refused.
"""

from data.audio_errors import UndecodableAudio
from serving.streaming.opus import RATE_HZ, Floats, OpusPackets, joined

_HEADER_BYTES = 27
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_UNKNOWN = (1 << 64) - 1


class OggOpusSource:
    """Bytes of Ogg pages to samples at 48 kHz."""

    rate_hz = RATE_HZ
    frame_bytes: int | None = None

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._packet = b""  # begun on an earlier page
        self._opus: OpusPackets | None = None
        self._channels: int | None = None
        self._headers_left = 0  # comment packets before the first audio
        self._given = 0  # samples since the header
        self._offset = 0  # granule position at which the recording began

    def feed(self, content: bytes) -> Floats:
        """Samples of the pages that are complete."""
        self._waiting += content
        parts = []
        while (page := self._next_page()) is not None:
            parts.append(self._samples(*page))
        return joined(parts)

    def finish(self) -> Floats:
        """Nothing: a page without its end is dropped."""
        return joined([])

    def _next_page(self) -> tuple[int, int, list[int], bytes] | None:
        """Flags, granule position, segment sizes and content of the next whole page."""
        waiting = self._waiting
        if not b"OggS".startswith(bytes(waiting[:4])) and waiting[:4] != b"OggS":
            raise UndecodableAudio("an Ogg page was expected")
        if len(waiting) < _HEADER_BYTES or len(waiting) < _HEADER_BYTES + waiting[26]:
            return None
        sizes = list(waiting[_HEADER_BYTES : _HEADER_BYTES + waiting[26]])
        begin = _HEADER_BYTES + len(sizes)
        end = begin + sum(sizes)
        if len(waiting) < end:
            return None
        flags, granule = waiting[5], int.from_bytes(waiting[6:14], "little")
        content = bytes(waiting[begin:end])
        del waiting[:end]
        return flags, granule, sizes, content

    def _samples(self, flags: int, granule: int, sizes: list[int], content: bytes) -> Floats:
        if flags & _FIRST:
            self._opus, self._headers_left, self._given, self._offset = None, 1, 0, 0
        if not flags & _CONTINUED:
            self._packet = b""
        parts, at = [], 0
        for size in sizes:
            self._packet += content[at : at + size]
            at += size
            if size < 255:  # a segment that is not full ends the packet
                parts.append(self._decoded(self._packet))
                self._packet = b""
        samples_TC = joined(parts)
        if len(samples_TC) and self._opus is not None and granule != _UNKNOWN:
            after = granule - self._opus.pre_skip - self._given  # by this page's end
            if flags & _LAST:  # the encoder's padding goes
                samples_TC = samples_TC[: max(0, after - self._offset)]
            elif not self._given:
                self._offset = max(0, after - len(samples_TC))
        self._given += len(samples_TC)
        return samples_TC

    def _decoded(self, packet: bytes) -> Floats:
        if self._opus is None:
            if not packet.startswith(b"OpusHead"):
                raise UndecodableAudio("of the codecs in Ogg only Opus is supported")
            self._opus = OpusPackets(packet)
            if self._channels not in (None, self._opus.channels):
                raise UndecodableAudio("the number of channels changes")
            self._channels = self._opus.channels
        elif self._headers_left:
            self._headers_left -= 1
        else:
            return self._opus.decode(packet)
        return joined([])
