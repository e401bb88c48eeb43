"""A recording in blocks: the samples and the errors of the whole, whatever the format."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.audio import AudioError, decode, load_mono_16k, to_mono_16k
from data.blocks import open_recording
from tests.support_audio import encoded, tone, written

RATE_HZ = 44_100


def sound(seconds: float = 3.0, channels: int = 2, rate_hz: int = RATE_HZ) -> np.ndarray:
    generator = np.random.default_rng(5)
    noise = generator.normal(0, 0.05, (round(seconds * rate_hz), channels))
    return (tone(seconds, rate_hz, channels) + noise).astype(np.float32)


def damaged(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes(400) + content[at + 400 :]


def numberless() -> bytes:
    samples = sound(2.0)
    samples[1000:1100] = np.nan
    samples[5000, 0] = np.inf
    return written(samples, RATE_HZ, "WAV/FLOAT")


CONTENTS = {
    "wav": written(sound(), RATE_HZ),
    "wav 16 kHz": written(sound(25.0, 1, 16_000)),
    "flac, 3 channels": written(sound(12.0, 3), RATE_HZ, "FLAC/PCM_16"),
    "ogg": written(sound(), RATE_HZ, "OGG/VORBIS"),
    "mp3": written(sound(), RATE_HZ, "MP3/MPEG_LAYER_III"),
    "m4a": encoded(sound(3.0, 1, 48_000)[:, 0], "mp4", "aac"),
    "webm": encoded(sound(3.0, 1, 48_000)[:, 0], "webm", "libopus"),
    "cut wav": written(sound(), RATE_HZ)[:90_001],
    "cut flac": written(sound(), RATE_HZ, "FLAC/PCM_16")[:60_000],
    "damaged flac": damaged(written(sound(), RATE_HZ, "FLAC/PCM_16")),
    "damaged mp3": damaged(written(sound(), RATE_HZ, "MP3/MPEG_LAYER_III")),
    "numberless": numberless(),
}


@pytest.mark.parametrize("kept_bytes", [0, 1 << 30], ids=["read again", "kept"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_blocks_are_the_whole_to_the_bit(kind: str, kept_bytes: int) -> None:
    whole = decode(CONTENTS[kind], name=kind)
    found = open_recording(io.BytesIO(CONTENTS[kind]), name=kind, kept_bytes=kept_bytes)
    for name in (
        "rate_hz", "channels", "container", "codec", "truncated", "repaired_samples", "duration_s"
    ):  # fmt: skip
        assert getattr(found, name) == getattr(whole, name), name
    assert found.peak == float(np.abs(whole.samples_TC).max())
    for _ in range(2):  # as often as one likes
        assert np.array_equal(np.concatenate(list(found.blocks())), whole.samples_TC)
    mono_TC = np.concatenate(list(found.blocks_16k()))
    assert np.array_equal(mono_TC[:, 0], to_mono_16k(whole))
    apart_TC = np.concatenate(list(found.blocks_16k(mixed=False)))
    assert apart_TC.shape == (len(mono_TC), whole.channels)
    for channel in range(whole.channels):
        alone = written(whole.samples_TC[:, [channel]], whole.rate_hz, "WAV/FLOAT")
        assert np.array_equal(apart_TC[:, channel], load_mono_16k(alone, name="channel"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no audio whatsoever " * 40,
        written(sound(0.0), RATE_HZ),
        written(np.full((RATE_HZ, 1), np.nan, np.float32), RATE_HZ, "WAV/FLOAT"),
        written(1000 * sound(1.0), RATE_HZ, "WAV/FLOAT"),
        written(sound(9.0), RATE_HZ),
    ],
    ids=["nothing", "text", "no samples", "no numbers", "integers", "too long"],
)
def test_what_is_wrong_is_told_before_the_first_block(content: bytes) -> None:
    with pytest.raises(AudioError) as whole:
        decode(content, name="x", max_duration_s=5.0)
    with pytest.raises(AudioError) as blocks:
        open_recording(content, name="x", max_duration_s=5.0, kept_bytes=0)
    assert type(blocks.value) is type(whole.value) and str(blocks.value) == str(whole.value)


def test_files_and_open_files_are_the_same_and_stay_open(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sound(30.0), RATE_HZ)
    with path.open("rb") as stream:
        for source in (path, path.read_bytes(), stream):
            found = open_recording(source, name="a", kept_bytes=0)
            sizes = [len(block_TC) for block_TC in found.blocks()]
            assert sum(sizes) == found.frames == 30 * RATE_HZ
            assert max(sizes) < 12 * RATE_HZ
        assert not stream.closed
