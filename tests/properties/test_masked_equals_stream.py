"""Masked file and stream are the same function, for every chunk, length, neighbour and blocking."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from features.streaming import settled_frames
from governance.errors import ConfigError
from training.config import ModelConfig
from training.convolution import Convolution
from training.model import AcousticModel
from training.subsampling import inputs_for

CONFIG = ModelConfig(
    mel_bins=8, vocab_size=7, d_model=16, layers=3, heads=2, middle_layer=1, left_frames=8
)
TOLERANCE = 1e-4


def small_model(right_frames: int = 2) -> AcousticModel:
    torch.manual_seed(7)
    model = AcousticModel(replace(CONFIG, conv_left_frames=3, conv_right_frames=right_frames))
    with torch.no_grad():
        model.head.weight.mul_(3.0)  # sharper outputs than at initialisation
        for block in model.encoder.blocks:
            block.attention.project_out.weight.normal_(0, 0.3)  # zero at initialisation
    return model.eval()


def files(lengths: list[int], seed: int, junk: float):
    """Random files in one padded batch; the padding holds ``junk``."""
    generator = torch.Generator().manual_seed(seed)
    x_BTF = torch.full((len(lengths), max(lengths), CONFIG.mel_bins), junk)
    for row, length in enumerate(lengths):
        x_BTF[row, :length] = torch.randn(length, CONFIG.mel_bins, generator=generator)
    return x_BTF, torch.tensor(lengths)


def run_stream(model, x_BTF, len_B, chunk_frames: int, left_frames: int, junk: float):
    """Feed fixed chunks until every row has ended; rows that ended ride along with length 0."""
    size, step = inputs_for(chunk_frames), 4 * settled_frames(chunk_frames)
    caches = model.initial_caches(len(len_B), left_frames)
    outputs: list[list] = [[] for _ in len_B]
    for start in range(0, int(len_B.max()), step):
        x_BSF = torch.full((len(len_B), size, x_BTF.shape[2]), junk)
        piece = x_BTF[:, start : start + size]
        x_BSF[:, : piece.shape[1]] = piece
        ended = (len_B - start + step < size) & (start > 0)  # the block before was not full
        lengths = (len_B - start).clamp(0, size).masked_fill(ended, 0)
        log_probs, out_len, *caches = model.forward_chunk(x_BSF, lengths, *caches)
        for row, frames in enumerate(out_len.tolist()):
            outputs[row].append(log_probs[row, :frames])
    return [torch.cat(rows) for rows in outputs], caches


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(7, 150), min_size=1, max_size=3),
    chunk_frames=st.integers(1, 9),
    left_frames=st.integers(1, 12),
    right_frames=st.sampled_from([0, 2]),
    seed=st.integers(0, 2**16),
    junk=st.sampled_from([0.0, 50.0, -1000.0]),
)
def test_stream_equals_masked_file(lengths, chunk_frames, left_frames, right_frames, seed, junk):
    model = small_model(right_frames)
    x_BTF, len_B = files(lengths, seed, junk)
    with torch.inference_mode():
        masked_BTV, out_B = model.forward_masked(x_BTF, len_B, chunk_frames, left_frames)
        streamed, caches = run_stream(model, x_BTF, len_B, chunk_frames, left_frames, junk)
    assert caches[2].tolist() == out_B.tolist()
    for row, frames in enumerate(out_B.tolist()):
        expected = masked_BTV[row, :frames]
        assert streamed[row].shape == expected.shape
        assert torch.allclose(streamed[row], expected, atol=TOLERANCE, rtol=0)
        assert streamed[row].argmax(-1).tolist() == expected.argmax(-1).tolist()


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(7, 120),
    neighbour=st.integers(7, 200),
    chunk_frames=st.sampled_from([0, 3, 8]),
    seed=st.integers(0, 2**16),
)
def test_batch_neighbour_changes_nothing(length, neighbour, chunk_frames, seed):
    model = small_model()
    x_BTF, len_B = files([length, neighbour], seed, junk=30.0)
    with torch.inference_mode():
        run = partial(model.forward_masked, chunk_frames=chunk_frames, left_frames=6)
        run = run if chunk_frames else model.forward_full
        together, out_B = run(x_BTF, len_B)
        alone, _ = run(x_BTF[:1, :length], len_B[:1])
    frames = int(out_B[0])
    assert torch.allclose(together[0, :frames], alone[0, :frames], atol=TOLERANCE, rtol=0)


def test_row_of_length_zero_keeps_its_caches():
    model = small_model()
    x_BTF, _ = files([inputs_for(4)] * 2, 3, junk=0.0)
    start = model.initial_caches(2, 8)
    with torch.inference_mode():
        _, _, *warm = model.forward_chunk(x_BTF, torch.tensor([19, 19]), *start)
        x_BTF[0] = float("nan")  # garbage in an idle row must not leak
        log_probs, out_len, *after = model.forward_chunk(x_BTF, torch.tensor([0, 19]), *warm)
    assert out_len.tolist() == [0, 2]  # half a chunk is settled
    assert torch.isfinite(log_probs).all()
    for before, now in zip(warm[:2], after[:2], strict=True):
        assert torch.equal(before[:, 0], now[:, 0])
        assert not torch.equal(before[:, 1], now[:, 1])
    assert after[2].tolist() == [2, 4]


def test_full_context_differs_from_masked():
    """The modes are distinct: with no chunk a frame does see its future."""
    model = small_model()
    x_BTF, len_B = files([120], 5, junk=0.0)
    with torch.inference_mode():
        full, _ = model.forward_full(x_BTF, len_B)
        masked, _ = model.forward_masked(x_BTF, len_B, 4, 2)
    assert (full - masked).abs().max() > 10 * TOLERANCE


def test_every_frame_is_settled_with_half_a_chunk_of_its_future():
    """What lies beyond the half chunk ahead of a frame cannot change it, what lies within does."""
    model, chunk = small_model(), 8
    x_BTF, len_B = files([203], 5, junk=0.0)
    with torch.inference_mode():
        before, _ = model.forward_masked(x_BTF, len_B, chunk, 8)
        x_BTF[:, 4 * 24 + 3 :] += 3.0  # encoder frames 24 and on
        after, _ = model.forward_masked(x_BTF, len_B, chunk, 8)
    changed = (after - before).abs().amax(dim=(0, 2)) > 1e-6
    assert not changed[:20].any() and changed[20:24].all()


def test_training_under_a_chunk_mask_is_the_convolution_of_every_chunk():
    torch.manual_seed(0)
    for left, right, chunk, frames in ((2, 2, 16, 50), (2, 2, 8, 8), (2, 3, 8, 37), (4, 1, 5, 23)):
        convolution = Convolution(12, left, right)
        x_BTD, keep = torch.randn(3, frames, 12), torch.ones(3, frames, 1, dtype=torch.bool)
        whole, _ = convolution(x_BTD, keep, chunk)
        heard = nn.functional.pad(convolution.activate(x_BTD, keep), (0, 0, left, 0))
        pieces = [heard[:, start : start + left + chunk] for start in range(0, frames, chunk)]
        torch.testing.assert_close(whole, torch.cat([convolution.convolve(p) for p in pieces], 1))


def test_a_chunk_shorter_than_a_convolutions_look_ahead_is_refused():
    convolution, x_BTD = Convolution(12, 2, 2), torch.zeros(1, 9, 12)
    with pytest.raises(ConfigError, match="a chunk of 1 frames is shorter"):
        convolution(x_BTD, torch.ones(1, 9, 1, dtype=torch.bool), 1)
