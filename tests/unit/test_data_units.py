import pytest

from data.units import samples_to_seconds, seconds_to_samples


def test_seconds_become_the_samples_a_person_expects() -> None:
    assert seconds_to_samples(0.025) == 400
    assert seconds_to_samples(0.1, 11_025) == 1_103  # 1102.5 rounds up
    assert seconds_to_samples(0.3, 10) == 3
    assert seconds_to_samples(0.0) == 0


def test_halves_round_up_whatever_the_parity() -> None:
    assert [seconds_to_samples(x, 1) for x in (0.5, 1.5, 2.5)] == [1, 2, 3]


def test_samples_and_seconds_are_inverse() -> None:
    for rate_hz in (8_000, 16_000, 44_100, 192_000):
        for samples in (1, 7, 12_345, 10**9 + 1):
            assert seconds_to_samples(samples_to_seconds(samples, rate_hz), rate_hz) == samples


def test_a_rate_is_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        samples_to_seconds(1, 0)
