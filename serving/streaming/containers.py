"""Audio that says itself what it is: a live stream without ``encoding`` in its query."""

from data.audio_errors import UndecodableAudio
from serving.streaming.ogg import OggOpusSource
from serving.streaming.opus import Floats, joined
from serving.streaming.sources import RawSource, Source
from serving.streaming.webm import WebmOpusSource

_MAGIC_BYTES = 4
_WAV_HEADER_LIMIT = 1 << 16  # bytes before the samples; more is no header
_WAV_ENCODINGS = {(1, 16): "linear16", (7, 8): "mulaw", (6, 8): "alaw"}  # (format tag, bits)
_EXTENSIBLE = 0xFFFE


class ContainerSource:
    """Looks at the first bytes, then leaves the rest to the container's own source."""

    def __init__(self) -> None:
        self._waiting = b""
        self._inner: Source | None = None

    @property
    def rate_hz(self) -> int:
        """The container's; 48 kHz until it is known."""
        return 48_000 if self._inner is None else self._inner.rate_hz

    @property
    def frame_bytes(self) -> int | None:
        """None: a container cannot be entered in the middle."""
        return None

    def feed(self, content: bytes) -> Floats:
        """Samples, once the container is known."""
        if self._inner is not None:
            return self._inner.feed(content)
        self._waiting += content
        if len(self._waiting) < _MAGIC_BYTES:
            return joined([])
        self._inner = _source_for(self._waiting[:_MAGIC_BYTES])
        waiting, self._waiting = self._waiting, b""
        return self._inner.feed(waiting)

    def finish(self) -> Floats:
        """What the container's source held back."""
        return joined([]) if self._inner is None else self._inner.finish()


class WavSource:
    """A WAV file as it is recorded; the sizes in its header are not believed."""

    frame_bytes: int | None = None

    def __init__(self) -> None:
        self._header = b""
        self._inner: RawSource | None = None

    @property
    def rate_hz(self) -> int:
        """The header's; any until it is read."""
        return 48_000 if self._inner is None else self._inner.rate_hz

    def feed(self, content: bytes) -> Floats:
        """Samples, once the header is read."""
        if self._inner is not None:
            return self._inner.feed(content)
        self._header += content
        rest = self._read_header()
        if rest is None or self._inner is None:
            return joined([])
        return self._inner.feed(rest)

    def finish(self) -> Floats:
        """Nothing: half a sample at the end is dropped."""
        return joined([]) if self._inner is None else self._inner.finish()

    def _read_header(self) -> bytes | None:
        """What follows the header, once it is whole."""
        header, at, form = self._header, 12, b""
        if len(header) >= at and header[8:12] != b"WAVE":
            raise UndecodableAudio("the WAV header cannot be read")
        while len(header) >= at + 8:
            name, size = header[at : at + 4], int.from_bytes(header[at + 4 : at + 8], "little")
            if name == b"data":
                self._inner = _wav_source(form)
                self._header = b""
                return header[at + 8 :]
            if name == b"fmt ":
                form = header[at + 8 : at + 8 + size]
            at += 8 + size + size % 2
            if at > _WAV_HEADER_LIMIT:
                raise UndecodableAudio("the WAV header has no end")
        return None


def _source_for(magic: bytes) -> Source:
    if magic == b"OggS":
        return OggOpusSource()
    if magic == b"RIFF":
        return WavSource()
    if magic == b"\x1aE\xdf\xa3":
        return WebmOpusSource()
    raise UndecodableAudio("neither Ogg, WebM nor WAV; raw audio needs `encoding`")


def _wav_source(form: bytes) -> RawSource:
    if len(form) < 16:
        raise UndecodableAudio("the WAV header cannot be read")
    tag, channels = (int.from_bytes(form[at : at + 2], "little") for at in (0, 2))
    rate_hz, bits = int.from_bytes(form[4:8], "little"), int.from_bytes(form[14:16], "little")
    if tag == _EXTENSIBLE and len(form) >= 26:
        tag = int.from_bytes(form[24:26], "little")
    encoding = _WAV_ENCODINGS.get((tag, bits))
    if encoding is None or not 1 <= channels <= 8 or not 8_000 <= rate_hz <= 192_000:
        raise UndecodableAudio("this kind of WAV is not supported: 16-bit PCM, mu-law or A-law is")
    return RawSource(encoding, rate_hz=rate_hz, channels=channels)
