"""Entropy-based confidence."""

import numpy as np
import pytest

from features.confidence import frame_confidence, word_confidence


def test_certain_is_one_and_uniform_is_zero() -> None:
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(29)[:3])
    uniform = np.full((2, 29), -np.log(29))
    np.testing.assert_allclose(frame_confidence(certain), 1.0)
    np.testing.assert_allclose(frame_confidence(uniform), 0.0, atol=1e-12)


def test_confidence_falls_as_probability_spreads() -> None:
    share = np.linspace(0.999, 1 / 29, 40)[:, None]
    probabilities = np.concatenate([share, np.repeat((1 - share) / 28, 28, axis=1)], axis=1)
    confidence = frame_confidence(np.log(probabilities))
    assert (np.diff(confidence) < 0).all()
    assert (confidence >= 0).all() and (confidence <= 1).all()


def test_which_token_is_sure_does_not_matter() -> None:
    logp = np.log(np.random.default_rng(0).dirichlet(np.ones(29), size=5))
    np.testing.assert_allclose(frame_confidence(logp), frame_confidence(logp[:, ::-1].copy()))


def test_the_least_sure_frame_decides_a_word() -> None:
    frames = [1.0, 0.9, 0.2, 0.7, 1.0]
    assert word_confidence(frames, 1, 4) == 0.2
    assert word_confidence(frames, 1, 4, how="mean") == pytest.approx(0.6)
    assert word_confidence(frames, 2, 2) == 0.0
