"""Opus in WebM from a live connection, as browsers' MediaRecorder sends it.

Of Matroska's elements only those are entered that lead to the audio; all others are skipped by
their size. Segments and clusters of unknown size are what a live recorder writes.
"""

from data.audio_errors import UndecodableAudio
from serving.streaming.opus import RATE_HZ, Floats, OpusPackets, joined

_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _GROUP = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xA0
_ENTERED = frozenset({_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _GROUP})
_CODEC, _PRIVATE, _SIMPLE_BLOCK, _BLOCK = 0x86, 0x63A2, 0xA3, 0xA1
_READ = frozenset({_CODEC, _PRIVATE, _SIMPLE_BLOCK, _BLOCK})
_LACING = 0x06
_ELEMENT_LIMIT = 1 << 20  # no packet and no codec header is larger


class WebmOpusSource:
    """Bytes of WebM to samples at 48 kHz."""

    rate_hz = RATE_HZ
    frame_bytes: int | None = None

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._skip = 0  # bytes of an element that nobody needs
        self._opus: OpusPackets | None = None

    def feed(self, content: bytes) -> Floats:
        """Samples of the blocks that are complete."""
        self._waiting += content
        parts = []
        while (element := self._next_element()) is not None:
            samples_TC = self._element(*element)
            if samples_TC is not None:
                parts.append(samples_TC)
        return joined(parts)

    def finish(self) -> Floats:
        """Nothing: a block without its end is dropped."""
        return joined([])

    def _next_element(self) -> tuple[int, bytes] | None:
        """The next element that is read; entered and skipped ones are passed."""
        waiting = self._waiting
        while True:
            if self._skip:
                gone = min(self._skip, len(waiting))
                del waiting[:gone]
                self._skip -= gone
                if self._skip:
                    return None
            head = _head(waiting)
            if head is None:
                return None
            name, size, begin = head
            if name in _READ:
                if size is None or size > _ELEMENT_LIMIT:
                    raise UndecodableAudio("a WebM block is too large")
                if len(waiting) < begin + size:
                    return None
                content = bytes(waiting[begin : begin + size])
                del waiting[: begin + size]
                return name, content
            del waiting[:begin]
            if name not in _ENTERED:
                if size is None:
                    raise UndecodableAudio("a WebM element has no size")
                self._skip = size

    def _element(self, name: int, content: bytes) -> Floats | None:
        if name == _CODEC:
            if content.rstrip(b"\0") != b"A_OPUS":
                raise UndecodableAudio("of the codecs in WebM only Opus is supported")
            return None
        if name == _PRIVATE:
            self._opus = OpusPackets(content)
            return None
        track = _number(content, 0, keep_marker=False)
        if self._opus is None or track is None or len(content) < track[1] + 3:
            raise UndecodableAudio("a WebM block before its track, or cut off")
        begin = track[1] + 3  # behind the time (two bytes) and the flags
        if content[begin - 1] & _LACING:
            raise UndecodableAudio("laced WebM blocks are not supported")
        return self._opus.decode(content[begin:])


def _head(content: bytearray) -> tuple[int, int | None, int] | None:
    """Name, size (None: unknown) and length of an element's head, once it is whole."""
    name = _number(content, 0, keep_marker=True)
    if name is None:
        return None
    size = _number(content, name[1], keep_marker=False)
    if size is None:
        return None
    unknown = size[0] == (1 << 7 * (size[1] - name[1])) - 1
    return name[0], None if unknown else size[0], size[1]


def _number(content: bytes | bytearray, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """A number of variable length and where it ends; None while bytes are missing."""
    if len(content) <= at:
        return None
    length = 9 - content[at].bit_length()
    if length > 8:
        raise UndecodableAudio("a WebM element was expected")
    if len(content) < at + length:
        return None
    value = int.from_bytes(content[at : at + length], "big")
    return value if keep_marker else value & ~(1 << 7 * length), at + length
