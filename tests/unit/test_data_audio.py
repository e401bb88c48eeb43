import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from data.audio import (
    Audio,
    AudioTooLarge,
    AudioTooLong,
    EmptyAudio,
    TruncatedAudio,
    UndecodableAudio,
    UnreadableAudio,
    decode,
    encode_flac_pcm16,
    encode_pcm16,
    load_mono_16k,
    to_mono_16k,
    to_pcm16,
)
from data.formats import PROBED


def tone(seconds: float = 1.0, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    time_T = np.arange(round(seconds * rate_hz)) / rate_hz
    wave_T = 0.4 * np.sin(2 * np.pi * 440 * time_T)
    return np.stack([wave_T / (1 + channel) for channel in range(channels)], axis=1).astype("f4")


def written(samples: np.ndarray, rate_hz: int = 16_000, kind: str = "WAV/PCM_16") -> bytes:
    sink = io.BytesIO()
    container, subtype = kind.split("/")
    soundfile.write(sink, samples, rate_hz, format=container, subtype=subtype)
    return sink.getvalue()


def encoded(samples_T: np.ndarray, container: str, codec: str, rate_hz: int = 48_000) -> bytes:
    """Through FFmpeg, for what libsndfile cannot write."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as media:
        track: Any = media.add_stream(codec, rate=rate_hz, layout="mono")
        source = av.AudioFrame.from_ndarray(
            (samples_T[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        source.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=track.codec_context.format, layout="mono", rate=rate_hz
        )
        fifo = av.AudioFifo()
        for frame in [*resampler.resample(source), *resampler.resample(None)]:
            frame.pts = None
            fifo.write(frame)
        for frame in fifo.read_many(track.codec_context.frame_size or 1024, partial=True):
            media.mux(track.encode(frame))
        media.mux(track.encode(None))
    return sink.getvalue()


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
    "beginning",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\na=rtpmap:0 PCMU/8000\n",
        "[playlist]\nFile1={path}\n",
        "<?xml version='1.0'?><MPD><BaseURL>{path}</BaseURL></MPD>",
    ],
)
@pytest.mark.parametrize("tail", [b"", b"\xff\x00" * 3_000], ids=["text", "binary"])
def test_what_opens_other_files_is_refused(tmp_path: Path, beginning: str, tail: bytes) -> None:
    """Also where bytes that are no text hide what it is, so that FFmpeg is asked."""
    (tmp_path / "secret.wav").write_bytes(written(tone()))
    content = beginning.format(path=tmp_path / "secret.wav").encode() + tail
    with pytest.raises(UndecodableAudio, match=r"not audio|no audio format"):
        decode(content, name="x")


def test_what_ffmpeg_may_find_exists_and_opens_nothing_else() -> None:
    assert set(PROBED) <= set(av.formats_available)
    opens_others = {
        "hls", "applehttp", "concat", "dash", "sdp", "rtsp", "image2", "imf", "vobsub", "lavfi",
        "tedcaptions", "sami", "srt", "ass", "webvtt", "rtp", "sap", "webm_dash_manifest", "aqtitle",
    }  # fmt: skip
    assert not opens_others & set(PROBED)


def test_bytes_of_chance_are_no_audio(capfd: pytest.CaptureFixture[str]) -> None:
    for seed in range(60):
        content = np.random.default_rng(seed).bytes(20_000)
        with pytest.raises(UndecodableAudio, match=r"no audio format|begins like mp3"):
            decode(content, name="x")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("container", "codec"), [("avi", "pcm_s16le"), ("wv", "wavpack"), ("tta", "tta")]
)
def test_a_cut_rarer_stream_is_told(container: str, codec: str) -> None:
    content = encoded(tone(4.0, 48_000)[:, 0], container, codec)
    audio = decode(content[: len(content) * 2 // 3], name="x")
    assert audio.truncated and 0.5 < audio.duration_s < 3.9


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 44_100, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_and_channel_count(rate_hz: int, channels: int) -> None:
    audio = decode(written(tone(0.5, rate_hz, channels), rate_hz), name="x")
    assert (audio.rate_hz, audio.channels, audio.duration_s) == (
        rate_hz,
        channels,
        round(rate_hz / 2) / rate_hz,
    )
    mono_T = to_mono_16k(audio)
    assert mono_T.dtype == np.float32 and abs(len(mono_T) - 8_000) <= 1


def test_mono_is_the_mean_of_the_channels() -> None:
    samples_TC = tone(0.2, channels=2)
    audio = Audio(samples_TC=samples_TC, rate_hz=16_000, container="wav", codec="float")
    assert np.allclose(to_mono_16k(audio), samples_TC.mean(axis=1), atol=1e-7)


def test_resampling_keeps_the_tone() -> None:
    mono_T = load_mono_16k(written(tone(1.0, 44_100), 44_100), name="x")
    assert np.abs(mono_T[2_000:14_000] - tone(1.0)[2_000:14_000, 0]).max() < 1e-3


def test_silence_is_audio() -> None:
    audio = decode(written(np.zeros((16_000, 1))), name="x")
    assert audio.duration_s == 1.0 and not audio.samples_TC.any()


def test_ten_milliseconds_are_audio() -> None:
    assert decode(written(tone(0.01)), name="x").duration_s == 0.01


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    for name in ("song.mp3", "song.raw", "song.txt", "song"):
        (tmp_path / name).write_bytes(written(tone(), kind="FLAC/PCM_16"))
        assert decode(tmp_path / name, name=name).container == "flac"


def test_an_empty_file() -> None:
    with pytest.raises(EmptyAudio, match=r"a\.wav: is empty"):
        decode(b"", name="a.wav")


def test_a_header_without_samples() -> None:
    with pytest.raises(EmptyAudio, match="no samples"):
        decode(written(np.zeros((0, 1))), name="x")


@pytest.mark.parametrize(
    "kind", ["WAV/PCM_16", "FLAC/PCM_16", "AIFF/PCM_16", "AU/ULAW", "W64/PCM_16"]
)
def test_a_cut_file_gives_what_is_left(kind: str) -> None:
    content = written(tone(3.0), kind=kind)
    audio = decode(content[: len(content) * 2 // 3], name="x")
    assert audio.truncated and 1.0 < audio.duration_s < 2.9


@pytest.mark.parametrize(
    ("container", "codec"), [("mp3", "libmp3lame"), ("webm", "libopus"), ("ogg", "libopus")]
)
def test_a_cut_stream_gives_what_is_left(container: str, codec: str) -> None:
    content = encoded(tone(4.0, 48_000)[:, 0], container, codec)
    audio = decode(content[: len(content) * 2 // 3], name="x")
    assert audio.truncated and 0.5 < audio.duration_s < 3.9


def test_a_cut_mp4_has_lost_its_index() -> None:
    content = encoded(tone(2.0, 48_000)[:, 0], "ipod", "aac")
    with pytest.raises(TruncatedAudio, match="index cannot be read"):
        decode(content[: len(content) // 2], name="x")


def test_damage_in_the_middle_is_told() -> None:
    content = bytearray(written(tone(5.0) + 0.01 * noise(80_000), kind="FLAC/PCM_16"))
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(300)
    audio = decode(bytes(content), name="x")
    assert audio.truncated and audio.duration_s > 2.0


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1)).astype(np.float32)


@pytest.mark.parametrize(
    "magic", [b"fLaC", b"OggS", b"RIFF\x00\x01\x00\x00WAVE", b"\x1aE\xdf\xa3", b"ID3\x04"]
)
def test_corrupt_content_behind_a_good_beginning(magic: bytes) -> None:
    content = magic + np.random.default_rng(0).bytes(5_000)
    with pytest.raises((UndecodableAudio, EmptyAudio, TruncatedAudio), match="x: "):
        decode(content, name="x")


def test_a_zip_named_wav_is_called_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("speech.wav", written(tone()))
    with pytest.raises(UndecodableAudio, match=r"is a zip archive, not audio. Mend: unpack"):
        decode(path, name="speech.wav")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"hello there, this is no audio\n", "text file"),
        ("größer".encode() * 200, "text file"),
        (b"#EXTM3U\nhttp://192.0.2.1/secret.ts\n", "play list"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "play list"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"\x1f\x8b\x08" + bytes(20), "gzip"),
        (b"\xff\xfeh\x00e\x00", "text file"),
        (bytes(4_000), "no audio format"),
        (np.random.default_rng(5).bytes(4_000), "no audio format"),
    ],
)
def test_what_is_no_audio_is_named(content: bytes, what: str) -> None:
    with pytest.raises(UndecodableAudio, match=what) as refused:
        decode(content, name="x")
    if what in ("text file", "play list"):  # it was never audio: fetching it again is no mend
        assert (refused.value.mend or "").startswith("name the recording itself")


def claiming(size: int) -> bytes:
    content = bytearray(written(tone(1.0)))
    start = content.index(b"data") + 4
    content[start : start + 4] = struct.pack("<I", size)
    content[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    return bytes(content)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_of_unknown_size_is_read_to_its_end(size: int) -> None:
    audio = decode(claiming(size), name="x")
    assert audio.duration_s == pytest.approx(1.0, abs=0.01) and not audio.truncated


def test_a_wav_that_claims_two_gigabytes_costs_nothing(tmp_path: Path) -> None:
    """In a child whose memory is capped far below what the header claims."""
    path = tmp_path / "big.wav"
    path.write_bytes(claiming(2_000_000_000))
    program = (
        "import resource; from pathlib import Path; from data.audio import decode\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "cap = used + (200 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (cap, cap))\n"
        f"audio = decode(Path({str(path)!r}), name='x')\n"
        "assert audio.duration_s == 1.0 and audio.truncated\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_few_samples_that_are_no_numbers_become_silence() -> None:
    samples_TC = tone(1.0)
    samples_TC[100], samples_TC[200], samples_TC[300] = np.nan, np.inf, -np.inf
    audio = decode(written(samples_TC, kind="WAV/FLOAT"), name="x")
    assert audio.repaired_samples == 3 and np.isfinite(audio.samples_TC).all()
    assert audio.samples_TC[200, 0] == 0.0


def test_many_samples_that_are_no_numbers_are_refused() -> None:
    samples_TC = tone(1.0)
    samples_TC[:4_000] = np.nan
    with pytest.raises(UndecodableAudio, match="4,000 of its samples are not numbers"):
        decode(written(samples_TC, kind="WAV/FLOAT"), name="x")


def test_integers_stored_as_floats_are_refused() -> None:
    with pytest.raises(UndecodableAudio, match="divide by 32768"):
        decode(written(tone() * 32_768, kind="WAV/FLOAT"), name="x")


def test_folders_missing_files_and_pipes(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio, match="is a folder"):
        decode(tmp_path, name="x")
    with pytest.raises(UnreadableAudio, match="does not exist"):
        decode(tmp_path / "none.wav", name="none.wav")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableAudio, match="not a regular file"):
        decode(tmp_path / "pipe", name="x")


@pytest.mark.parametrize("kind", ["WAV/PCM_16", "OGG/VORBIS"])
def test_limits_hold_while_reading(kind: str) -> None:
    content = written(tone(3.0), kind=kind)
    assert decode(content, name="x", max_duration_s=3.1).duration_s == pytest.approx(3, abs=0.01)
    with pytest.raises(AudioTooLong, match="longer than the 2 s allowed"):
        decode(content, name="x", max_duration_s=2.0)
    with pytest.raises(AudioTooLarge, match="unpacks to more"):
        decode(content, name="x", max_decoded_bytes=100_000)
    with pytest.raises(AudioTooLarge, match="bytes, more than"):
        decode(content, name="x", max_bytes=1_000)


def test_a_rate_nobody_speaks_at_is_refused() -> None:
    with pytest.raises(UndecodableAudio, match="1,000 samples a second"):
        decode(written(tone(1.0), 1_000), name="x")


def test_damaged_files_write_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    for container, codec in (("mp3", "libmp3lame"), ("ogg", "libopus"), ("adts", "aac")):
        content = bytearray(encoded(tone(2.0, 48_000)[:, 0], container, codec))
        content[3_000:3_400] = np.random.default_rng(1).bytes(400)
        decode(bytes(content[:-50]), name="x")
    assert capfd.readouterr() == ("", "")


def test_flac_keeps_sixteen_bits_exactly() -> None:
    pcm_TC = np.random.default_rng(0).integers(-32_768, 32_768, (5_000, 2), dtype=np.int16)
    first = decode(written(pcm_TC), name="x")
    content = encode_flac_pcm16(first.samples_TC, 16_000)
    again = decode(content, name="x")
    assert np.array_equal(to_pcm16(again.samples_TC), pcm_TC)
    assert encode_flac_pcm16(again.samples_TC, 16_000) == content


def test_what_passes_full_scale_is_clipped_not_wrapped() -> None:
    pcm_TC = to_pcm16(np.array([[1.5], [1.0], [-1.5], [0.0]], np.float32))
    assert pcm_TC[:, 0].tolist() == [32_767, 32_767, -32_768, 0]


def test_too_many_channels_for_flac() -> None:
    with pytest.raises(UndecodableAudio, match="9 channels"):
        encode_flac_pcm16(tone(0.1, channels=9), 16_000)


def test_microphone_arrays_are_stored_whole() -> None:
    for channels in (8, 9, 64):
        samples_TC = tone(0.2, channels=channels)
        content = encode_pcm16(samples_TC, 16_000)
        again = decode(content, name="x")
        assert again.container == ("flac" if channels == 8 else "wav")
        assert np.array_equal(to_pcm16(again.samples_TC), to_pcm16(samples_TC))
        assert encode_pcm16(again.samples_TC, 16_000) == content
    with pytest.raises(UndecodableAudio, match="65 channels"):
        decode(written(tone(0.1, channels=65)), name="x")


def test_upsampling_a_telephone_call_adds_nothing_above_four_kilohertz() -> None:
    wave_T = noise(8_000)[:, 0] * 0.1
    mono_T = load_mono_16k(written(wave_T[:, None], 8_000), name="x")
    power_F = np.abs(np.fft.rfft(mono_T[:16_000])) ** 2
    assert power_F[8_300:].sum() < 1e-5 * power_F.sum()


def test_serving_gets_no_heavy_import() -> None:
    program = (
        "import sys, data.audio\n"
        "heavy = {'av', 'pyarrow', 'pandas', 'torch', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
