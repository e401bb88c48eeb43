"""What a file is, read from its bytes: the extension is a rumour.

FFmpeg is told which demuxer to use and never guesses: its guesses include play lists and
concatenation scripts, which open other files and addresses.
"""

import os
from dataclasses import dataclass
from typing import BinaryIO

from data.audio_errors import UndecodableAudio

HEAD_BYTES = 4096
_TEXT_PROBE_BYTES = 512
_UNKNOWN_WAV_SIZES = {0, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFFF - 36, 0xFFFFFFFF, 0xFFFFFFFF - 36}
_OGG_TAIL_BYTES = 1 << 17


@dataclass(frozen=True, kw_only=True)
class Container:
    """A recognised container and who can open it."""

    name: str
    """Name used in manifests, such as ``wav``."""
    demuxer: str = ""
    """FFmpeg's demuxer, the only one it may use; empty if FFmpeg is not asked."""
    sndfile: bool = False
    """Whether libsndfile is asked first."""
    exact_duration: bool = False
    """Whether a stated duration is a fact and not an estimate, so that a shorter one is a cut."""


_WAV = Container(name="wav", demuxer="wav", sndfile=True)
# Ogg and MP3 go to FFmpeg although libsndfile reads them: it loses all of a cut Ogg stream, and
# its MP3 library writes complaints to stderr.
_OGG = Container(name="ogg", demuxer="ogg", exact_duration=True)
_MP3 = Container(name="mp3", demuxer="mp3")
_MP3_XING = Container(name="mp3", demuxer="mp3", exact_duration=True)
_MAGIC: tuple[tuple[bytes, Container], ...] = (
    (b"fLaC", Container(name="flac", demuxer="flac", sndfile=True, exact_duration=True)),
    (b"OggS", _OGG),
    (b"RF64", Container(name="rf64", sndfile=True)),
    (b"riff\x2e\x91\xcf\x11", Container(name="w64", demuxer="w64", sndfile=True)),
    (b"caff", Container(name="caf", demuxer="caf", sndfile=True)),
    (b".snd", Container(name="au", demuxer="au", sndfile=True)),
    (b"NIST_1A", Container(name="nist", demuxer="nistsphere", sndfile=True)),
    (b"\x1aE\xdf\xa3", Container(name="matroska", demuxer="matroska", exact_duration=True)),
    (b"#!AMR", Container(name="amr", demuxer="amr")),
    (b"0&\xb2u\x8ef\xcf\x11", Container(name="asf", demuxer="asf")),
)
_REFUSED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"SQLite format 3", "a SQLite database"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"\xff\xfe", "a text file (UTF-16)"),
    (0, b"\xfe\xff", "a text file (UTF-16)"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
)


def sniff(head: bytes, *, name: str) -> Container:
    """The container that begins with ``head`` (``HEAD_BYTES`` of it), or a refusal."""
    found = _audio_container(head)
    if found is not None:
        return found
    for position, magic, what in _REFUSED:
        if head.startswith(magic, position):
            raise UndecodableAudio(f"is {what}, not audio", item=name, mend=_mend(what))
    if _looks_like_text(head):
        raise UndecodableAudio("is a text file, not audio", item=name)
    raise UndecodableAudio(
        "holds no audio format that is known",
        item=name,
        mend="convert it to WAV or FLAC; raw samples without a header need one",
    )


def _audio_container(head: bytes) -> Container | None:
    if head.startswith((b"RIFF", b"RIFX")):
        return _WAV if head[8:12] == b"WAVE" else None
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return Container(name="aiff", demuxer="aiff", sndfile=True)
    if head[4:8] == b"ftyp":
        return Container(name="mp4", demuxer="mov", exact_duration=True)
    if head.startswith(b"ID3") or _is_mpeg_frame(head):
        return _MP3_XING if b"Xing" in head or b"Info" in head else _MP3
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return Container(name="aac", demuxer="aac")
    return next((container for magic, container in _MAGIC if head.startswith(magic)), None)


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
    if container.name == "aiff":
        return 8 + int.from_bytes(head[4:8], "big")
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
