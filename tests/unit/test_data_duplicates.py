import io

import numpy as np
import pytest
import soundfile
import soxr

from data.audio import load_mono_16k
from data.duplicates import (
    DuplicatePair,
    fingerprint,
    near_duplicates,
    originals,
)
from tests.support_audio import encoded


def speechlike(seed: int, seconds: float = 3.0, *, take: int = 0) -> np.ndarray:
    """Syllables in a quiet room; another take says the same with other timing and pitch."""
    words, voice = np.random.default_rng(seed), np.random.default_rng((seed, take))
    pieces = []
    while sum(map(len, pieces)) < seconds * 16_000:
        length = int(2_400 * words.uniform(0.6, 1.6) * voice.uniform(0.85, 1.15))
        phase_T = np.cumsum(np.linspace(*(voice.uniform(90, 160, 2)), length)) / 16_000
        formants = words.uniform(300, 3_400, 3) * voice.uniform(0.94, 1.06, 3)
        weights = [np.exp(-(((h * 120 - formants) / 200) ** 2)).sum() for h in range(1, 30)]
        tone_T = sum(w * np.sin(2 * np.pi * h * phase_T) for h, w in enumerate(weights, start=1))
        pieces += [0.1 * np.hanning(length) * tone_T, np.zeros(int(voice.uniform(200, 900)))]
    wave_T = np.concatenate(pieces)[: round(seconds * 16_000)]
    return (wave_T + 2e-3 * voice.normal(size=len(wave_T))).astype(np.float32)


def through(samples_T: np.ndarray, kind: str) -> np.ndarray:
    if kind == "gain":
        return samples_T * np.float32(0.2)
    if kind == "shift":
        return np.concatenate([np.zeros(500, np.float32), samples_T])
    if kind == "mp3":
        wave_T = soxr.resample(samples_T, 16_000, 44_100)
        return load_mono_16k(encoded(wave_T, "mp3", "libmp3lame", 44_100), name="x")
    sink = io.BytesIO()
    wave_T = soxr.resample(samples_T, 16_000, 8_000) * 0.5
    soundfile.write(sink, wave_T, 8_000, format="WAV", subtype="ULAW")
    return load_mono_16k(sink.getvalue(), name="x")


@pytest.mark.parametrize("kind", ["gain", "shift", "mp3", "telephone"])
@pytest.mark.parametrize("seconds", [0.8, 4.0])
def test_one_recording_in_other_clothes_is_found(kind: str, seconds: float) -> None:
    prints = {f"other {seed}": fingerprint(speechlike(seed, seconds)) for seed in range(20)}
    original_T = speechlike(99, seconds)
    prints |= {"b": fingerprint(original_T), "a": fingerprint(through(original_T, kind))}
    (pair,) = near_duplicates(prints)
    assert (pair.first, pair.second) == ("a", "b") and pair.distance < 0.24


def test_equal_samples_have_no_distance() -> None:
    prints = {name: fingerprint(speechlike(1)) for name in "ab"}
    assert near_duplicates(prints) == [DuplicatePair(first="a", second="b", distance=0.0)]


def test_a_sentence_said_again_is_no_duplicate() -> None:
    prints = {
        f"{seed} {take}": fingerprint(speechlike(seed, 2.0, take=take))
        for seed in range(5)
        for take in range(12)
    }
    assert near_duplicates(prints) == []


def test_recordings_of_other_length_are_not_compared() -> None:
    samples_T = speechlike(1, 4.0)
    prints = {"whole": fingerprint(samples_T), "half": fingerprint(samples_T[:32_000])}
    assert near_duplicates(prints) == []


@pytest.mark.parametrize("samples", [0, 1, 160, 16_000])
def test_silence_and_crumbs_match_nothing(samples: int) -> None:
    prints = {name: fingerprint(np.zeros(samples, np.float32)) for name in "ab"}
    assert near_duplicates(prints) == [] and near_duplicates({}) == []


def pair(first: str, second: str) -> DuplicatePair:
    return DuplicatePair(first=first, second=second, distance=0.1)


def test_repetition_is_passed_on_to_one_original() -> None:
    assert originals([pair("b", "c"), pair("a", "b"), pair("x", "y")]) == {
        "b": "a",
        "c": "a",
        "y": "x",
    }


def test_what_was_there_before_stays_the_original() -> None:
    assert originals([pair("a", "b"), pair("b", "c")], rank=lambda name: name != "c") == {
        "a": "c",
        "b": "c",
    }
