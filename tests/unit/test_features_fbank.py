from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.fbank import StreamingFbank, log_mel, mel_weights, num_frames
from features.spec import FeatureSpec
from governance.errors import AuricleError

SPEC = FeatureSpec()
PARITY = 1e-3  # float32 arithmetic in another order, in the log domain
FAINT_NATS = (
    16.0  # 70 dB below the frame's loudest filter lies the rounding noise of a float32 FFT,
)
FAINT_PARITY = 4e-3  # where torchaudio and kaldi-native-fbank differ from each other as much


def speech_like(seconds: float, seed: int) -> NDArray[np.float32]:
    """A voiced buzz with moving pitch and formants, pauses, breath noise and a DC offset."""
    generator = np.random.default_rng(seed)
    time_T = np.arange(int(seconds * SPEC.sample_rate_hz)) / SPEC.sample_rate_hz
    pitch_T = 120 + 30 * np.sin(2 * np.pi * 0.7 * time_T + seed)
    phase_T = 2 * np.pi * np.cumsum(pitch_T) / SPEC.sample_rate_hz
    voice_T = np.zeros_like(time_T)
    for harmonic in range(1, 40):
        formant_T = 500 + 300 * np.sin(2 * np.pi * 1.3 * time_T)
        voice_T += np.sin(harmonic * phase_T) / (1 + np.abs(harmonic * pitch_T - formant_T) / 200)
    voice_T *= 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 1.1 * time_T))
    wave_T = 0.05 * voice_T + 0.003 * generator.standard_normal(len(time_T)) + 0.01
    return wave_T.astype(np.float32)


def assert_parity(ours_TF: NDArray[Any], theirs_TF: NDArray[Any]) -> None:
    assert ours_TF.shape == theirs_TF.shape
    difference_TF = np.abs(ours_TF - theirs_TF)
    faint_TF = theirs_TF < theirs_TF.max(axis=1, keepdims=True) - FAINT_NATS
    assert faint_TF.mean() < 0.05
    assert difference_TF[~faint_TF].max() <= PARITY
    assert difference_TF.max() <= FAINT_PARITY


def by_definition(samples_T: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float64]:
    """Kaldi's recipe, word for word in float64."""
    scaled_T = samples_T.astype(np.float64) * spec.sample_scale
    rows = []
    for start in range(0, len(scaled_T) - spec.window_samples + 1, spec.hop_samples):
        frame_W = scaled_T[start : start + spec.window_samples].copy()
        frame_W -= frame_W.mean()
        frame_W[1:] -= spec.preemphasis * frame_W[:-1]
        frame_W[0] -= spec.preemphasis * frame_W[0]
        position_W = np.arange(spec.window_samples) / (spec.window_samples - 1)
        frame_W *= (0.5 - 0.5 * np.cos(2 * np.pi * position_W)) ** 0.85
        power_B = np.abs(np.fft.rfft(frame_W, spec.fft_size)) ** 2
        rows.append(np.log(np.maximum(power_B @ mel_weights(spec), spec.log_floor)))
    return np.array(rows)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_follows_the_definition(seed: int) -> None:
    wave_T = speech_like(4.0, seed)
    assert_parity(log_mel(wave_T, SPEC), by_definition(wave_T, SPEC))


@pytest.mark.parametrize(
    "spec",
    [
        FeatureSpec(sample_scale=1.0, mel_bins=40),
        FeatureSpec(sample_rate_hz=8000, high_hz=3800, fft_size=256),
        FeatureSpec(fft_size=1024, preemphasis=0.0, low_hz=0),
        FeatureSpec(mel_bins=1),
    ],
)
def test_follows_the_definition_at_other_settings(spec: FeatureSpec) -> None:
    wave_T = speech_like(2.0, 5)
    assert_parity(log_mel(wave_T, spec), by_definition(wave_T, spec))


@pytest.mark.parametrize("scale", [32768.0, 1.0])
def test_parity_with_torchaudio_at_equal_settings(scale: float) -> None:
    import torch
    import torchaudio.compliance.kaldi as kaldi

    wave_T = speech_like(6.0, 7)
    theirs = kaldi.fbank(
        torch.from_numpy(wave_T)[None] * scale,
        num_mel_bins=80,
        low_freq=20.0,
        high_freq=7600.0,
        dither=0.0,
        window_type="povey",
        snip_edges=True,
        use_energy=False,
    ).numpy()
    assert_parity(log_mel(wave_T, FeatureSpec(sample_scale=scale)), theirs)


def test_parity_with_kaldi_native_fbank_at_equal_settings() -> None:
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = 80
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = 7600.0
    peer = knf.OnlineFbank(options)
    wave_T = speech_like(6.0, 8)
    peer.accept_waveform(16_000.0, (wave_T * 32768).tolist())
    peer.input_finished()
    theirs = np.stack([peer.get_frame(i) for i in range(peer.num_frames_ready)])
    assert_parity(log_mel(wave_T, SPEC), theirs)


def test_silence_lies_on_the_floor_and_loud_noise_is_finite() -> None:
    silent = log_mel(np.zeros(16_000, np.float32), SPEC)
    np.testing.assert_allclose(silent, np.log(SPEC.log_floor), rtol=1e-6)
    loud_T = np.sign(np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    loud = log_mel(loud_T, SPEC)
    assert np.isfinite(loud).all()
    assert loud.max() < 32  # far inside float16, in which the archive keeps it


def test_constant_offset_is_removed() -> None:
    wave_T = speech_like(1.0, 3)
    shifted = log_mel(wave_T + np.float32(0.1), SPEC)
    np.testing.assert_allclose(shifted, log_mel(wave_T, SPEC), atol=0.05)


def test_doubling_the_gain_adds_the_log_of_four() -> None:
    wave_T = speech_like(1.0, 4)
    louder = log_mel(wave_T * np.float32(2), SPEC)
    np.testing.assert_allclose(louder, log_mel(wave_T, SPEC) + np.log(4), atol=1e-4)


def test_a_tone_peaks_in_the_filter_around_its_frequency() -> None:
    tone_T = (0.1 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)).astype(np.float32)
    peak = log_mel(tone_T, SPEC).mean(axis=0).argmax()
    bin_of_tone = round(1000 / (16_000 / 512))
    assert abs(mel_weights(SPEC)[bin_of_tone].argmax() - peak) <= 1


def test_too_short_for_a_frame_gives_none() -> None:
    assert log_mel(np.zeros(399, np.float32), SPEC).shape == (0, 80)
    assert log_mel(np.zeros(0, np.float32), SPEC).shape == (0, 80)


def test_input_is_left_as_it_was_and_float64_is_taken() -> None:
    wave_T = speech_like(0.5, 6)
    before_T = wave_T.copy()
    features = log_mel(wave_T, SPEC)
    np.testing.assert_array_equal(wave_T, before_T)
    np.testing.assert_array_equal(log_mel(wave_T.astype(np.float64), SPEC), features)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 400), np.float32), np.zeros(400, np.int16), np.float32(1)]
)
def test_unusable_samples_are_refused(bad: NDArray[np.float32]) -> None:
    with pytest.raises(AuricleError, match="one channel of float samples"):
        log_mel(bad, SPEC)


def test_a_broken_sample_stays_in_its_own_frames() -> None:
    wave_T = speech_like(6.0, 9)
    clean = log_mel(wave_T, SPEC)
    wave_T[20_000] = np.nan
    broken = log_mel(wave_T, SPEC)
    touched = np.isnan(broken).any(axis=1)
    assert 1 <= touched.sum() <= 3
    np.testing.assert_array_equal(broken[~touched], clean[~touched])


def test_stream_gives_each_frame_as_soon_as_it_is_complete() -> None:
    stream = StreamingFbank(SPEC)
    wave_T = speech_like(0.2, 2)
    assert len(stream.accept(wave_T[:399])) == 0
    assert len(stream.accept(wave_T[399:400])) == 1
    assert len(stream.accept(wave_T[400:560])) == 1
    assert len(stream.finish()) == 0
    with pytest.raises(AuricleError, match="after finish"):
        stream.accept(wave_T)


def test_stream_may_reuse_the_callers_buffer() -> None:
    wave_T = speech_like(0.5, 1)
    stream, parts = StreamingFbank(SPEC), []
    buffer_T = np.empty(333, np.float32)
    for start in range(0, len(wave_T) - 333, 333):
        buffer_T[:] = wave_T[start : start + 333]
        parts.append(stream.accept(buffer_T))
        buffer_T[:] = 7
    together = np.concatenate(parts)
    np.testing.assert_array_equal(together, log_mel(wave_T, SPEC)[: len(together)])
    assert len(together) == num_frames(len(wave_T) // 333 * 333, SPEC)
