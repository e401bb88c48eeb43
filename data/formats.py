"""The containers that are known, by how they begin, and who can open each.

FFmpeg may open only what is named here. What it can read besides includes play lists, concatenation
scripts, subtitles and stream descriptions, which open other files and addresses.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Container:
    """A recognised container and who can open it."""

    name: str = ""
    """Name used in manifests, such as ``wav``; empty where FFmpeg finds it among ``PROBED``."""
    demuxer: str = ""
    """FFmpeg's demuxer, the only one it may use; empty if FFmpeg is not asked."""
    sndfile: bool = False
    """Whether libsndfile is asked first."""
    exact_duration: bool = False
    """Whether a stated duration is a fact and not an estimate, so that a shorter one is a cut."""
    probed: bool = False
    """Whether FFmpeg finds the demuxer itself, by content, among ``PROBED`` only."""


def _both(name: str, demuxer: str = "") -> Container:
    return Container(name=name, demuxer=demuxer or name, sndfile=True)


WAV = _both("wav")
AIFF = _both("aiff")
SVX = _both("svx", "iff")
MP4 = Container(name="mp4", demuxer="mov", exact_duration=True)
MP3 = Container(name="mp3", demuxer="mp3")
MP3_XING = Container(name="mp3", demuxer="mp3", exact_duration=True)
AAC = Container(name="aac", demuxer="aac")
AVI = Container(name="avi", demuxer="avi")
MPEGTS = Container(name="mpegts", demuxer="mpegts")
SDS = _both("sds")
MPC2K = Container(name="mpc2k", sndfile=True)
HTK = Container(name="htk", sndfile=True)
G722 = Container(name="g722", demuxer="g722")
UNNAMED = Container(probed=True)

# Ogg and MP3 go to FFmpeg although libsndfile reads them: it loses all of a cut Ogg stream, and
# its MP3 library writes complaints to stderr.
MAGIC: tuple[tuple[bytes, Container], ...] = (
    (b"fLaC", Container(name="flac", demuxer="flac", sndfile=True, exact_duration=True)),
    (b"OggS", Container(name="ogg", demuxer="ogg", exact_duration=True)),
    (b"RF64", Container(name="rf64", sndfile=True)),
    (b"riff\x2e\x91\xcf\x11", _both("w64")),
    (b"caff", _both("caf")),
    (b".snd", _both("au")),
    (b"NIST_1A", _both("nist", "nistsphere")),
    (b"\x1aE\xdf\xa3", Container(name="matroska", demuxer="matroska", exact_duration=True)),
    (b"#!AMR", Container(name="amr", demuxer="amr")),
    (b"0&\xb2u\x8ef\xcf\x11", Container(name="asf", demuxer="asf")),
    (b"FLV\x01", Container(name="flv", demuxer="flv", exact_duration=True)),
    (b"wvpk", Container(name="wavpack", demuxer="wv", exact_duration=True)),
    (b"TTA1", Container(name="tta", demuxer="tta", exact_duration=True)),
    (b"\x00\x00\x01\xba", Container(name="mpeg", demuxer="mpeg")),
    (b"nut/multimedia container\0", Container(name="nut", demuxer="nut")),
    (b"Creative Voice File\x1a", _both("voc")),
    (b"PVF1\n", _both("pvf")),
    (b"2BIT", _both("avr")),
    (b" paf", _both("paf", "epaf")),
    (b"fap ", _both("paf", "epaf")),
    *((bytes((0x64, 0xA3, machine, 0)), _both("ircam")) for machine in range(1, 5)),
    *((bytes((0, machine, 0xA3, 0x64)), _both("ircam")) for machine in range(1, 5)),
    (b"ALawSoundFile**", _both("wve")),
    (b"Extended Instrument:", Container(name="xi", sndfile=True)),
    (b"MATLAB 5.0 MAT-file", Container(name="mat5", sndfile=True)),
    (b"\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00", Container(name="mat4", sndfile=True)),
    (b"\x00\x00\x03\xe8\x00\x00\x00\x01\x00\x00\x00\x01", Container(name="mat4", sndfile=True)),
)

PROBED = (
    "aac", "ac3", "adx", "amr", "ape", "asf", "ast", "au", "avi", "caf", "dsf", "dss", "dts",
    "dtshd", "eac3", "flac", "flv", "gsm", "gxf", "ilbc", "ircam", "kvag", "loas", "matroska",
    "mlp", "mmf", "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "mxf", "nut", "ogg", "oma",
    "qcp", "qoa", "rm", "sds", "shn", "smjpeg", "sox", "tak", "truehd", "tta", "voc", "w64",
    "wav", "wsd", "wtv", "wv", "xwma",
)  # fmt: skip
"""Demuxers that FFmpeg may choose by content: each reads one file and opens no other."""

REFUSED: tuple[tuple[int, bytes, str], ...] = (
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
    (0, b"#EXTM3U", "a play list"),
    (0, b"ffconcat", "a play list"),
)
