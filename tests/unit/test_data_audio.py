"""Decoding: what a recording may be, what is refused by name, and what damage costs."""

import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

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
from tests.support_audio import encoded, tone, written


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
