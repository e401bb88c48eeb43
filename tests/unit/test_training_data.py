"""Sampler, dataset, augmentation: pure functions of (seed, step, utterance, view)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.norm import NormStats, normalise
from governance.errors import ConfigError
from training import augment
from training.config import AugmentConfig, ModelConfig, TrainConfig
from training.dataset import Example, TrainingData, clean_batches, draw_chunk
from training.draws import generator, seed_for
from training.sampler import BatchSampler
from training.subsampling import output_frames

MELS = 12
STATS = NormStats(
    mean_F=np.full(MELS, 5.0, np.float32), std_F=np.full(MELS, 2.0, np.float32), frames=100
)
CONFIG = TrainConfig(model=ModelConfig(mel_bins=MELS), augment=AugmentConfig(), batch_utterances=4)
STILL = AugmentConfig(
    speeds=(1.0,),
    warp=0.0,
    room_chance=0.0,
    noise_chance=0.0,
    babble_chance=0.0,
    gain_db=0.0,
    tilt_db=0.0,
    time_masks_per_s=0.0,
    mel_masks=0,
)


class NoiseArchive:
    """Speech-like: quiet, loud, quiet; the duration follows from the name."""

    def get(self, utterance_id: str, speed: float = 1.0):
        number = int(utterance_id.removeprefix("u"))
        frames = round((150 + 40 * number) / speed)
        rng = np.random.default_rng(number)
        x_TF = rng.normal(2.0, 0.5, (frames, MELS))
        x_TF[frames // 3 : 2 * frames // 3] += 8.0
        return x_TF.astype(np.float16)


def examples(count: int, prior_mean_F=None) -> list[Example]:
    return [
        Example(
            utterance_id=f"u{number}",
            text="ab",
            tokens=(3, 4, 4),
            frames=150 + 40 * number,
            prior_mean_F=prior_mean_F,
        )
        for number in range(count)
    ]


@settings(max_examples=30, deadline=None)
@given(
    frames=st.lists(st.integers(20, 3000), min_size=1, max_size=60),
    seed=st.integers(0, 1000),
    most=st.integers(1, 9),
)
def test_every_epoch_uses_each_utterance_once(frames, seed, most):
    sampler = BatchSampler(frames, seed=seed, max_utterances=most, max_frames=6000)
    for epoch in (0, 3):
        first = epoch * sampler.batches_per_epoch
        batches = [sampler.batch(first + n) for n in range(sampler.batches_per_epoch)]
        assert sorted(index for batch in batches for index in batch) == list(range(len(frames)))
        assert all(1 <= len(batch) <= most for batch in batches)


def test_batches_are_bucketed_and_repeatable():
    frames = [100 + 37 * n % 900 for n in range(200)]
    one = BatchSampler(frames, seed=3, max_utterances=8, max_frames=10**6)
    two = BatchSampler(frames, seed=3, max_utterances=8, max_frames=10**6)
    assert one.batch(777) == two.batch(777)  # no replay of earlier steps is needed
    assert one.batch(777) != BatchSampler(frames, seed=4, max_utterances=8, max_frames=10**6).batch(
        777
    )
    padded = used = 0
    for step in range(one.batches_per_epoch):
        lengths = [frames[index] for index in one.batch(step)]
        padded += max(lengths) * len(lengths)
        used += sum(lengths)
    assert padded < 1.35 * used


def test_long_recordings_make_small_batches():
    sampler = BatchSampler([100] * 10 + [3000] * 10, seed=1, max_utterances=10, max_frames=6000)
    sizes = sorted(len(sampler.batch(step)) for step in range(sampler.batches_per_epoch))
    assert sizes == [2, 2, 2, 2, 2, 10]


def test_no_utterance_is_a_clear_error():
    with pytest.raises(ConfigError, match="no utterance to train on"):
        BatchSampler([], seed=1, max_utterances=4, max_frames=100)


def test_batch_of_a_step_is_a_pure_function():
    one = TrainingData(NoiseArchive(), examples(9), STATS, CONFIG)
    two = TrainingData(NoiseArchive(), examples(9), STATS, CONFIG)
    one[5], one[2]
    a, b = one[11], two[11]
    assert torch.equal(a.x_BTF, b.x_BTF) and a.chunk_frames == b.chunk_frames
    other = TrainingData(NoiseArchive(), examples(9), STATS, replace(CONFIG, seed=2))[11]
    assert a.x_BTF.shape != other.x_BTF.shape or not torch.equal(a.x_BTF, other.x_BTF)


def test_views_of_a_step_differ():
    data = TrainingData(NoiseArchive(), examples(3), STATS, CONFIG)
    one, two = data.view(1, 4, view=0).x_TF, data.view(1, 4, view=1).x_TF
    assert one.shape != two.shape or not np.array_equal(one, two)


def test_without_augmentation_only_silence_is_cut():
    config = replace(CONFIG, augment=replace(STILL, margin_s=(0.1, 0.1)))
    example = examples(6)[5]
    data = TrainingData(NoiseArchive(), examples(6), STATS, config)
    whole = normalise(NoiseArchive().get("u5"), STATS.mean_F, STATS.std_F)
    view, (onset, end) = data.view(5, 0)
    assert len(view) < 0.6 * example.frames
    places = [
        start
        for start in range(len(whole) - len(view) + 1)
        if np.allclose(whole[start : start + len(view)], view)
    ]
    assert len(places) == 1  # normalised as a whole, then cut: the state of the service
    loud = np.flatnonzero(whole.mean(axis=1) > 0)
    assert places[0] <= loud[0] and loud[-1] < places[0] + len(view)
    assert abs(places[0] + onset - loud[0]) < 10 and abs(places[0] + end - loud[-1]) < 10


def test_cut_never_makes_a_reference_infeasible():
    config = replace(CONFIG, augment=replace(STILL, margin_s=(0.01, 0.02)))
    long_text = [replace(examples(1)[0], tokens=tuple([1, 2] * 15))]
    batch = TrainingData(NoiseArchive(), long_text, STATS, config)[0]
    assert int(batch.len_B[0]) == 150 and batch.infeasible == 0
    assert batch.spoken_B2[0].tolist() == [0, output_frames(150)]  # the speech alone is too short
    hopeless = [replace(long_text[0], tokens=(1, 1) * 30)]
    assert TrainingData(NoiseArchive(), hopeless, STATS, config)[0].infeasible == 1


def test_labels_may_lie_where_somebody_speaks():
    config = replace(CONFIG, augment=replace(STILL, margin_s=(0.6, 0.6)))
    data = TrainingData(NoiseArchive(), examples(6), STATS, config)
    batch = data[0]
    views = [data.view(index, 0) for index in data.sampler.batch(0)]
    assert all(view.speech[0] > 40 and len(view.x_TF) - view.speech[1] > 40 for view in views)
    for (first, last), view in zip(batch.spoken_B2.tolist(), views, strict=True):
        start, end = view.speech
        assert first == (start - 25 - 3) // 4 and last == (end + 25 - 3) // 4


def test_warm_prior_is_used_as_often_as_asked():
    prior_F = np.full(MELS, 9.0, np.float32)
    config = replace(CONFIG, augment=STILL, warm_prior_chance=0.5)
    data = TrainingData(NoiseArchive(), examples(1, prior_F), STATS, config)
    levels = [float(data.view(0, step).x_TF[:5].mean()) for step in range(60)]
    warm = sum(level < np.mean(levels) for level in levels)
    assert 15 <= warm <= 45
    cold = TrainingData(NoiseArchive(), examples(1), STATS, config)
    assert np.ptp([float(cold.view(0, step).x_TF[:5].mean()) for step in range(20)]) < 1.0


def test_chunks_mix_full_context_and_the_range():
    chunks = [draw_chunk(CONFIG, step) for step in range(1000)]
    assert 330 <= chunks.count(0) <= 470
    assert {chunk for chunk in chunks if chunk} == set(range(8, 33))


def test_clean_batches_hold_every_recording_once():
    batches = clean_batches(NoiseArchive(), examples(9), STATS, max_frames=900)
    assert sorted(index for indices, _ in batches for index in indices) == list(range(9))
    for indices, batch in batches:
        assert batch.x_BTF.shape[0] * batch.x_BTF.shape[1] <= 900 or len(indices) == 1
        for row, index in enumerate(indices):
            expected = normalise(NoiseArchive().get(f"u{index}"), STATS.mean_F, STATS.std_F)
            assert int(batch.len_B[row]) == len(expected)
            assert np.array_equal(batch.x_BTF[row, : len(expected)].numpy(), expected)


def test_seeds_depend_on_every_part():
    seeds = {seed_for(1, 2, "a", 0), seed_for(1, 2, "a", 1), seed_for(12, "a", 0), seed_for(1, 2)}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)


def test_mix_adds_power():
    loud = np.full((4, MELS), 3.0, np.float32)
    assert np.allclose(augment.mix(loud, loud, 0.0), 3.0 + np.log(2), atol=1e-5)
    assert np.allclose(augment.mix(loud, loud, -30.0), 3.0, atol=1e-5)


def test_warp_moves_a_peak_and_keeps_the_level():
    x_TF = np.zeros((1, 80), np.float32)
    x_TF[0, 40] = 1.0
    assert int((x_TF @ augment.warp_matrix(80, 0.1)).argmax()) < 40
    assert int((x_TF @ augment.warp_matrix(80, -0.1)).argmax()) > 40
    flat = np.full((1, 80), 7.0, np.float32)
    assert np.allclose(flat @ augment.warp_matrix(80, 0.07), 7.0, atol=1e-4)
    assert np.allclose(augment.warp_matrix(80, 0.0), np.eye(80))


def test_room_only_adds_energy_after_a_sound():
    x_TF = np.full((60, MELS), -20.0, np.float32)
    x_TF[20] = 5.0
    wet_TF = augment.reverberate(x_TF, t60_s=0.3, late_share=0.5)
    assert (wet_TF[:21] >= x_TF[:21] - 1e-4).all() and (wet_TF[:21] < x_TF[:21] + 0.5).all()
    assert (wet_TF[21:30] > x_TF[21:30] + 1).all()
    assert (np.diff(wet_TF[21:35, 0]) < 0).all()


def test_noise_has_unit_power_and_snr_is_kept():
    noise_TF = augment.stationary_noise((4000, MELS), generator("noise"))
    assert abs(np.log(np.exp(noise_TF).mean())) < 0.1


def test_masks_zero_whole_frames_and_bands():
    config = AugmentConfig(time_masks_per_s=2.0, time_mask_frames=10, mel_masks=2, mel_mask_bins=4)
    x_TF = np.ones((300, MELS), np.float32)
    masked_TF = augment.spec_augment(x_TF, config, generator(5))
    assert (x_TF == 1).all()  # the input is not touched
    zero = masked_TF == 0
    assert zero.any() and not zero.all()
    time, band = zero.all(axis=1), zero.all(axis=0)
    assert np.array_equal(zero, time[:, None] | band[None, :])


def test_speech_bounds_of_flat_recordings_are_everything():
    assert augment.speech_bounds(np.zeros((50, MELS), np.float32)) == (0, 50)
    start, end = augment.speech_bounds(NoiseArchive().get("u5").astype(np.float32))
    assert abs(start - 350 // 3) <= 6 and abs(end - 700 // 3) <= 6
