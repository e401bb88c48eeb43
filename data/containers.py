"""What a file is, read from its bytes: the extension is a rumour.

FFmpeg is told which demuxer to use and never guesses: its guesses include play lists and
concatenation scripts, which open other files and addresses.
"""

import os
from typing import BinaryIO

from data.audio_errors import UndecodableAudio
from data.formats import (
    AAC,
    AIFF,
    AVI,
    G722,
    HTK,
    MAGIC,
    MP3,
    MP3_XING,
    MP4,
    MPC2K,
    MPEGTS,
    REFUSED,
    SDS,
    SVX,
    UNNAMED,
    WAV,
    Container,
)

HEAD_BYTES = 4096
_TEXT_PROBE_BYTES = 512
_NAME_A_RECORDING = "name the recording itself: WAV, FLAC, MP3, Ogg or another audio file"
_UNKNOWN_WAV_SIZES = {0, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFFF - 36, 0xFFFFFFFF, 0xFFFFFFFF - 36}
_OGG_TAIL_BYTES = 1 << 17
_MPEGTS_PACKETS = ((0, 188), (4, 192), (0, 204))  # plain, with time codes, with error correction
_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def sniff(head: bytes, *, name: str, size: int) -> Container:
    """The container that begins with ``head`` (``HEAD_BYTES`` of ``size``), or a refusal.

    Content decides. The one exception is G.722: it has no header, and any bytes are valid.
    """
    found = _audio_container(head, size)
    if found is not None:
        return found
    for position, magic, what in REFUSED:
        if head.startswith(magic, position):
            raise UndecodableAudio(f"is {what}, not audio", item=name, mend=_mend(what))
    if _looks_like_text(head):
        raise UndecodableAudio("is a text file, not audio", item=name, mend=_NAME_A_RECORDING)
    return G722 if name.lower().endswith(".g722") else UNNAMED


def unknown(name: str) -> UndecodableAudio:
    """The refusal of what neither decoder knows."""
    return UndecodableAudio(
        "holds no audio format that is known",
        item=name,
        mend="convert it to WAV or FLAC; raw samples without a header need one",
    )


def _audio_container(head: bytes, size: int) -> Container | None:
    if head.startswith((b"RIFF", b"RIFX")) and head[8:12] in (b"WAVE", b"AVI "):
        return WAV if head[8:12] == b"WAVE" else AVI
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return AIFF
    if head.startswith(b"FORM") and head[8:12] in (b"8SVX", b"16SV"):
        return SVX
    if head[4:8] == b"ftyp" or head[4:8] in _QUICKTIME_ATOMS:
        return MP4
    if head.startswith(b"ID3") or _is_mpeg_frame(head):
        return MP3_XING if b"Xing" in head or b"Info" in head else MP3
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return AAC
    if any(
        head[start::step][:4] == b"GGGG" and len(head) > 3 * step for start, step in _MPEGTS_PACKETS
    ):
        return MPEGTS
    known = next((container for magic, container in MAGIC if head.startswith(magic)), None)
    return known or _weakly_marked(head, size)


def _weakly_marked(head: bytes, size: int) -> Container | None:
    """Formats of two bytes of magic, or of none: something else in the header must fit as well."""
    if head.startswith(b"\xf0~") and head[3:4] == b"\x01":
        return SDS
    if head.startswith(b"\x01\x04") and head[2:18].isascii() and head[2:18].decode().isprintable():
        return MPC2K
    return HTK if _is_htk(head, size) else None


def _is_htk(head: bytes, size: int) -> bool:
    """HTK has no magic: the file is as long as its header says, in 16-bit waveform samples."""
    samples, width, kind = (
        int.from_bytes(head[a:b], "big") for a, b in ((0, 4), (8, 10), (10, 12))
    )
    return samples > 0 and (width, kind) == (2, 0) and size == 12 + 2 * samples


def _is_mpeg_frame(head: bytes) -> bool:
    """An MPEG audio frame header without reserved values (layer 0 is ADTS, 3 is layer I)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0 or head[1] == 0xFE:
        return False
    version, layer = (head[1] >> 3) & 3, (head[1] >> 1) & 3
    bitrate, rate = head[2] >> 4, (head[2] >> 2) & 3
    return version != 1 and layer != 0 and bitrate not in (0, 15) and rate != 3


def _looks_like_text(head: bytes) -> bool:
    probe = head[:_TEXT_PROBE_BYTES]
    try:
        text = probe.decode()
    except UnicodeDecodeError as error:
        # A character cut in two by the end of the probe is no reason to doubt the rest.
        if error.start < len(probe) - 3:
            return False
        text = probe[: error.start].decode()
    return bool(text) and all(char.isprintable() or char in "\t\r\n\f" for char in text)


def _mend(what: str) -> str | None:
    if "archive" in what or what.endswith(("gzip file", "xz file", "bzip2 file", "Zstandard file")):
        return "unpack it first"
    if "text file" in what or "play list" in what:
        return _NAME_A_RECORDING
    return "fetch the file with git lfs pull" if "LFS" in what else None


def is_cut_off(container: Container, stream: BinaryIO) -> bool:
    """Whether the container's own structure says that its end is missing."""
    if container.name == "wav":
        return _wav_is_cut(stream)
    if container.name == "ogg":
        return _ogg_is_cut(stream)
    stream.seek(0)
    return _stated_bytes(container, stream.read(64)) > stream.seek(0, os.SEEK_END)


def _stated_bytes(container: Container, head: bytes) -> int:
    """The size of the whole file that its first bytes promise; 0 where they promise none."""
    if container.name in ("aiff", "svx"):
        return 8 + int.from_bytes(head[4:8], "big")
    if container.name == "avi":
        return 8 + int.from_bytes(head[4:8], "little")
    if container.name == "au":
        data = int.from_bytes(head[8:12], "big")
        return 0 if data == 0xFFFFFFFF else int.from_bytes(head[4:8], "big") + data
    if container.name == "rf64":
        return 8 + int.from_bytes(head[20:28], "little")
    return int.from_bytes(head[16:24], "little") if container.name == "w64" else 0


def _wav_is_cut(stream: BinaryIO) -> bool:
    """The data chunk claims more than the file holds; sizes that mean "unknown" claim nothing."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    big_endian = stream.read(12).startswith(b"RIFX")
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        header = stream.read(8)
        claimed = int.from_bytes(header[4:], "big" if big_endian else "little")
        if header[:4] == b"data":
            return claimed not in _UNKNOWN_WAV_SIZES and position + 8 + claimed > size
        position += 8 + claimed + claimed % 2
    return True


def _ogg_is_cut(stream: BinaryIO) -> bool:
    """The last whole page does not carry the end-of-stream flag, or bytes of a page follow it."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _OGG_TAIL_BYTES))
    tail = stream.read()
    last = tail.rfind(b"OggS")
    if last < 0 or last + 27 > len(tail):
        return True
    segments = tail[last + 26]
    table = tail[last + 27 : last + 27 + segments]
    return not tail[last + 5] & 4 or last + 27 + segments + sum(table) > len(tail)
