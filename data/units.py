"""Sample counts and seconds: one place where rounding is decided."""

from fractions import Fraction

SAMPLE_RATE_HZ = 16_000
"""The rate at which profiles, features and models see every recording."""


def samples_to_seconds(samples: int, rate_hz: int = SAMPLE_RATE_HZ) -> float:
    """The duration of ``samples`` samples; the nearest float to the exact ratio."""
    _require_rate(rate_hz)
    return samples / rate_hz


def seconds_to_samples(seconds: float, rate_hz: int = SAMPLE_RATE_HZ) -> int:
    """The nearest sample count, halves rounded up, in integer arithmetic.

    The decimal that a person would write for ``seconds`` is what counts: 0.1 is one tenth, not the
    binary fraction beside it, so the answer is the same on every machine.
    """
    _require_rate(rate_hz)
    return _half_up(Fraction(repr(float(seconds))) * rate_hz)


def _half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _require_rate(rate_hz: int) -> None:
    if rate_hz <= 0:
        raise ValueError(f"a sample rate is positive, not {rate_hz}")
