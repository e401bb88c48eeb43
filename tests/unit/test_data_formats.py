"""Every format of libsndfile and FFmpeg that is read, and what it is called."""

import numpy as np
import pytest
import soundfile

from data.audio import (
    UndecodableAudio,
    decode,
)
from tests.support_audio import encoded, tone, written


@pytest.mark.parametrize(
    ("kind", "codec", "tolerance"),
    [
        ("WAV/PCM_16", "pcm_16", 1e-4),
        ("WAV/PCM_24", "pcm_24", 1e-6),
        ("WAV/PCM_32", "pcm_32", 1e-6),
        ("WAV/FLOAT", "float", 0),
        ("WAV/DOUBLE", "double", 1e-7),
        ("WAV/PCM_U8", "pcm_u8", 1e-2),
        ("WAV/ULAW", "ulaw", 2e-2),
        ("WAV/ALAW", "alaw", 2e-2),
        ("WAV/GSM610", "gsm610", 0.5),
        ("FLAC/PCM_24", "pcm_24", 1e-6),
        ("AIFF/PCM_16", "pcm_16", 1e-4),
        ("AU/ULAW", "ulaw", 2e-2),
        ("CAF/PCM_16", "pcm_16", 1e-4),
        ("W64/PCM_16", "pcm_16", 1e-4),
        ("RF64/PCM_16", "pcm_16", 1e-4),
        ("NIST/PCM_16", "pcm_16", 1e-4),
    ],
)
def test_formats_of_libsndfile(kind: str, codec: str, tolerance: float) -> None:
    samples_TC = tone(1.0, 8_000)
    audio = decode(written(samples_TC, 8_000, kind), name="x")
    assert (audio.container, audio.codec) == (kind.split("/")[0].lower(), codec)
    assert (audio.rate_hz, audio.channels, audio.truncated) == (8_000, 1, False)
    assert np.abs(audio.samples_TC[:8_000] - samples_TC).max() <= tolerance


@pytest.mark.parametrize(
    ("container", "codec", "found"),
    [
        ("mp3", "libmp3lame", ("mp3", "mp3")),
        ("ipod", "aac", ("mp4", "aac")),
        ("webm", "libopus", ("matroska", "opus")),
        ("ogg", "libopus", ("ogg", "opus")),
        ("adts", "aac", ("aac", "aac")),
        ("wav", "pcm_mulaw", ("wav", "ulaw")),
    ],
)
def test_formats_of_ffmpeg(container: str, codec: str, found: tuple[str, str]) -> None:
    samples_T = tone(2.0, 48_000)[:, 0]
    audio = decode(encoded(samples_T, container, codec), name="x")
    assert (audio.container, audio.codec) == found
    assert not audio.truncated and audio.rate_hz == 48_000
    assert audio.duration_s == pytest.approx(2.0, abs=0.05)
    level = np.sqrt((audio.samples_TC[10_000:80_000] ** 2).mean())
    assert level == pytest.approx(0.4 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize(
    "kind",
    [
        "AVR",
        "HTK",
        "IRCAM",
        "MAT4",
        "MAT5",
        "MPC2K",
        "PAF",
        "PVF",
        "SDS",
        "SVX",
        "VOC",
        "WVE",
        "XI",
    ],
)
def test_rarer_formats_of_libsndfile(kind: str) -> None:
    subtype = {"WVE": "ALAW", "XI": "DPCM_16"}.get(kind, "PCM_16")
    samples_TC = tone(1.0, 8_000)
    audio = decode(written(samples_TC, 8_000, f"{kind}/{subtype}"), name="x")
    rate_hz = 44_100 if kind == "XI" else 8_000  # an instrument has no rate of its own
    assert (audio.container, audio.rate_hz, audio.channels) == (kind.lower(), rate_hz, 1)
    assert not audio.truncated and np.abs(audio.samples_TC[:8_000] - samples_TC).max() < 0.02


def test_every_format_that_libsndfile_writes_is_read() -> None:
    headerless = {"RAW", "SD2"}  # SD2 keeps its header in another file
    for kind in sorted(set(soundfile.available_formats()) - headerless):
        subtype = soundfile.default_subtype(kind)
        rate_hz = 48_000 if kind == "OGG" else 8_000
        audio = decode(written(tone(1.0, rate_hz), rate_hz, f"{kind}/{subtype}"), name="x")
        level = float(np.sqrt((audio.samples_TC[1_000:7_000] ** 2).mean()))
        assert level == pytest.approx(0.4 / np.sqrt(2), rel=0.05), kind


@pytest.mark.parametrize(
    ("container", "codec", "found"),
    [
        ("avi", "pcm_s16le", ("avi", "pcm_s16le")),
        ("avi", "libmp3lame", ("avi", "mp3")),
        ("mpegts", "aac", ("mpegts", "aac")),
        ("flv", "aac", ("flv", "aac")),
        ("wv", "wavpack", ("wavpack", "wavpack")),
        ("tta", "tta", ("tta", "tta")),
        ("mpeg", "mp2", ("mpeg", "mp2")),
        ("vob", "mp2", ("mpeg", "mp2")),
        ("nut", "libopus", ("nut", "opus")),
        ("mov", "pcm_s16le", ("mp4", "pcm_s16le")),
        ("voc", "pcm_s16le", ("voc", "pcm_16")),
        ("wav", "g722", ("wav", "adpcm_g722")),
        ("mp2", "mp2", ("mp3", "mp2")),
        # found by FFmpeg itself, among the demuxers that it is allowed
        ("ac3", "ac3", ("ac3", "ac3")),
        ("eac3", "eac3", ("eac3", "eac3")),
        ("latm", "aac", ("loas", "aac_latm")),
        ("sox", "pcm_s32le", ("sox", "pcm_s32le")),
        ("rm", "ac3", ("rm", "ac3")),
        ("wtv", "mp2", ("wtv", "mp2")),
        ("ast", "pcm_s16be_planar", ("ast", "pcm_s16be_planar")),
    ],
)
def test_rarer_formats_of_ffmpeg(container: str, codec: str, found: tuple[str, str]) -> None:
    audio = decode(encoded(tone(2.0, 48_000)[:, 0], container, codec), name="x")
    assert (audio.container, audio.codec) == found
    assert (audio.rate_hz, audio.truncated) == (48_000, False)
    assert audio.duration_s == pytest.approx(2.0, abs=0.05)
    level = np.sqrt((audio.samples_TC[10_000:80_000] ** 2).mean())
    assert level == pytest.approx(0.4 / np.sqrt(2), rel=0.06)  # LAME takes 5 % off


def test_headerless_telephone_codecs() -> None:
    """GSM shows by its frames; G.722 shows by nothing, and only there the extension is believed."""
    gsm = written(tone(1.0, 8_000), 8_000, "RAW/GSM610")
    audio = decode(gsm, name="x")
    assert (audio.container, audio.rate_hz) == ("gsm", 8_000)
    assert audio.duration_s == pytest.approx(1.0, abs=0.03)
    g722 = encoded(tone(1.0)[:, 0], "g722", "g722", 16_000)
    audio = decode(g722, name="call.G722")
    assert (audio.container, audio.rate_hz, audio.duration_s) == ("g722", 16_000, 1.0)
    with pytest.raises(UndecodableAudio, match="no audio format"):
        decode(g722, name="call.bin")
    assert decode(written(tone()), name="really.g722").container == "wav"


@pytest.mark.parametrize(
    ("container", "codec"), [("avi", "pcm_s16le"), ("wv", "wavpack"), ("tta", "tta")]
)
def test_a_cut_rarer_stream_is_told(container: str, codec: str) -> None:
    content = encoded(tone(4.0, 48_000)[:, 0], container, codec)
    audio = decode(content[: len(content) * 2 // 3], name="x")
    assert audio.truncated and 0.5 < audio.duration_s < 3.9
