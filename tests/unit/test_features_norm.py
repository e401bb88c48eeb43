import json

import numpy as np
import pytest

from features.norm import NormStats, RunningNormaliser, StatsAccumulator, normalise
from governance.errors import AuricleError, ConfigError

GENERATOR = np.random.default_rng(11)
X_TF = (GENERATOR.standard_normal((500, 80)) * 3 + 9).astype(np.float32)
PRIOR_F = GENERATOR.standard_normal(80).astype(np.float32) + 8
STD_F = (GENERATOR.random(80) + 2).astype(np.float32)


def test_each_frame_follows_the_formula() -> None:
    normal = normalise(X_TF, PRIOR_F, STD_F, prior_frames=300)
    for t in (0, 1, 99, 499):
        mean_F = (
            300 * PRIOR_F.astype(np.float64) + X_TF[: t + 1].sum(axis=0, dtype=np.float64)
        ) / (300 + t + 1)
        np.testing.assert_allclose(normal[t], (X_TF[t] - mean_F) / STD_F, rtol=1e-4, atol=1e-5)
    assert normal.dtype == np.float32


def test_a_frame_knows_nothing_of_the_future() -> None:
    changed_TF = X_TF.copy()
    changed_TF[100:] += 5
    before = normalise(X_TF, PRIOR_F, STD_F)[:100]
    np.testing.assert_array_equal(normalise(changed_TF, PRIOR_F, STD_F)[:100], before)


@pytest.mark.parametrize("sizes", [[1] * 500, [7, 0, 193, 300], [64] * 8, [499, 1]])
def test_any_chunking_gives_the_same_bits(sizes: list[int]) -> None:
    stream, parts, start = RunningNormaliser(PRIOR_F, STD_F), [], 0
    for size in sizes:
        parts.append(stream.apply(X_TF[start : start + size]))
        start += size
    np.testing.assert_array_equal(np.concatenate(parts), normalise(X_TF, PRIOR_F, STD_F))


def test_a_right_prior_is_right_from_the_first_frame_and_a_wrong_one_fades() -> None:
    truth_F = X_TF.mean(axis=0)
    warm = normalise(X_TF, truth_F, STD_F)
    assert abs(warm[:50].mean()) < 0.1
    cold = normalise(np.tile(X_TF, (20, 1)), truth_F + 10, STD_F)
    assert abs(cold[:50].mean()) > 2
    assert abs(cold[-50:].mean()) < 0.2


def test_no_prior_at_all_is_a_plain_running_mean() -> None:
    normal = normalise(X_TF, PRIOR_F, STD_F, prior_frames=0)
    np.testing.assert_allclose(normal[0], 0, atol=1e-6)


def test_float16_features_are_taken_and_left_as_they_were() -> None:
    half_TF = X_TF.astype(np.float16)
    copy_TF = half_TF.copy()
    normal = normalise(half_TF, PRIOR_F, STD_F)
    np.testing.assert_array_equal(half_TF, copy_TF)
    np.testing.assert_array_equal(normal, normalise(half_TF.astype(np.float32), PRIOR_F, STD_F))


def test_an_empty_chunk_changes_nothing() -> None:
    stream = RunningNormaliser(PRIOR_F, STD_F)
    assert stream.apply(X_TF[:0]).shape == (0, 80)
    np.testing.assert_array_equal(stream.apply(X_TF), normalise(X_TF, PRIOR_F, STD_F))


def test_statistics_of_parts_merge_into_those_of_the_whole() -> None:
    whole, left, right = (StatsAccumulator(80) for _ in range(3))
    whole.add(X_TF)
    left.add(X_TF[:123])
    right.add(X_TF[123:])
    left.merge(right)
    merged, stats = left.stats(), whole.stats()
    assert merged.frames == stats.frames == 500
    np.testing.assert_allclose(merged.mean_F, X_TF.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(merged.std_F, X_TF.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(merged.std_F, stats.std_F, rtol=1e-6)


def test_constant_features_get_a_small_positive_deviation() -> None:
    accumulator = StatsAccumulator(3)
    accumulator.add(np.full((10, 3), 4.0, np.float32))
    stats = accumulator.stats()
    assert (stats.std_F > 0).all()
    assert np.isfinite(normalise(np.full((5, 3), 4.0), stats.mean_F, stats.std_F)).all()


def test_nothing_counted_is_an_error_with_a_mend() -> None:
    with pytest.raises(AuricleError, match=r"no frame was counted.*Mend"):
        StatsAccumulator(80).stats()


def test_json_keeps_every_bit() -> None:
    accumulator = StatsAccumulator(80)
    accumulator.add(X_TF)
    stats = accumulator.stats()
    back = NormStats.from_json(json.loads(json.dumps(stats.to_json())))
    np.testing.assert_array_equal(back.mean_F, stats.mean_F)
    np.testing.assert_array_equal(back.std_F, stats.std_F)
    assert back.frames == 500


@pytest.mark.parametrize(
    "document",
    [
        {"mean": [1.0], "std": [1.0]},
        {"mean": [1.0, 2.0], "std": [1.0], "frames": 3},
        {"mean": [1.0], "std": [0.0], "frames": 3},
        {"mean": [float("nan")], "std": [1.0], "frames": 3},
        {"mean": ["x"], "std": [1.0], "frames": 3},
    ],
)
def test_unusable_statistics_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="norm statistics"):
        NormStats.from_json(document)


def test_a_negative_prior_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="prior_frames"):
        RunningNormaliser(PRIOR_F, STD_F, prior_frames=-1)
