"""A recording's condition does not depend on how loud it is played, nor leave its bounds."""

from dataclasses import asdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.profile import profile


def recording(seed: int, count: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    envelope_T = np.repeat(generator.uniform(0.001, 0.2, count // 500 + 1), 500)[:count]
    return (envelope_T * generator.normal(size=count)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 20_000),
    gain=st.floats(0.01, 20.0),
)
def test_gain_changes_only_levels(seed: int, count: int, gain: float) -> None:
    samples_T = recording(seed, count)
    before, after = profile(samples_T, 16_000), profile(samples_T * np.float32(gain), 16_000)
    assert abs(before.snr_db - after.snr_db) <= 0.11  # one step of rounding
    assert abs(before.bandwidth_hz - after.bandwidth_hz) <= 125.1
    assert abs(before.speech_ratio - after.speech_ratio) <= 0.051


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1, 1, width=32), max_size=600),
    rate_hz=st.sampled_from([8_000, 16_000, 44_100, 192_000]),
)
def test_values_stay_within_their_bounds(values: list[float], rate_hz: int) -> None:
    measured = profile(np.array(values, np.float32), rate_hz)
    assert all(np.isfinite(value) for value in asdict(measured).values())
    assert -120 <= measured.level_dbfs <= measured.peak_dbfs + 0.01 <= 0.02
    assert 0 <= measured.clipping_ratio <= 1 and 0 <= measured.speech_ratio <= 1
    assert 0 <= measured.snr_db <= 80 and 0 <= measured.bandwidth_hz <= rate_hz / 2
