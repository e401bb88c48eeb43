"""Opus packets of a container to samples, one packet at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.audio_errors import UndecodableAudio

Floats = NDArray[np.float32]
RATE_HZ = 48_000  # Opus always decodes to it, whatever was recorded
_HEAD_BYTES = 19
_FAMILIES = (0, 1)  # mono or stereo, and surround; others are not for players


class OpusPackets:
    """Decodes the packets that follow an ``OpusHead`` (RFC 7845)."""

    def __init__(self, head: bytes) -> None:
        import av  # FFmpeg costs a tenth of a second; plain PCM never pays it

        if len(head) < _HEAD_BYTES or not head.startswith(b"OpusHead") or head[18] not in _FAMILIES:
            raise UndecodableAudio("the Opus header cannot be read")
        self.channels = head[9]
        if not 1 <= self.channels <= 8:
            raise UndecodableAudio(f"Opus with {self.channels} channels")
        self.pre_skip = int.from_bytes(head[10:12], "little")
        self._av = av
        self._codec: Any = av.CodecContext.create("opus", "r")
        self._codec.extradata = head

    def decode(self, packet: bytes) -> Floats:
        """Samples [T, C] of one packet; those of the encoder's start-up are left out already."""
        av = self._av
        try:
            frames = self._codec.decode(av.Packet(packet))
        except av.FFmpegError:
            raise UndecodableAudio("an Opus packet cannot be decoded") from None
        return joined([np.asarray(frame.to_ndarray().T, np.float32) for frame in frames])


def joined(parts: list[Floats]) -> Floats:
    """Parts [T, C] one after another; none is a part without samples."""
    full = [part for part in parts if len(part)]
    return np.concatenate(full) if full else np.empty((0, 1), np.float32)
