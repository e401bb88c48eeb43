"""Masked file and stream are the same function, for every chunk, length, neighbour and blocking."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from governance.errors import ConfigError  # noqa: E402
from training.config import ModelConfig  # noqa: E402
from training.model import AcousticModel  # noqa: E402
from training.subsampling import inputs_for  # noqa: E402

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


def run_stream(model, x_BTF, len_B, chunk_frames: int, left_chunks: int, junk: float):
    """Feed fixed chunks until every row has ended; rows that ended ride along with length 0."""
    size, step = inputs_for(chunk_frames), 4 * chunk_frames
    caches = model.initial_caches(len(len_B), left_chunks * chunk_frames)
    outputs: list[list] = [[] for _ in len_B]
    for start in range(0, int(len_B.max()), step):
        x_BSF = torch.full((len(len_B), size, x_BTF.shape[2]), junk)
        piece = x_BTF[:, start : start + size]
        x_BSF[:, : piece.shape[1]] = piece
        lengths = (len_B - start).clamp(0, size)
        log_probs, out_len, *caches = model.forward_chunk(x_BSF, lengths, *caches)
        for row, frames in enumerate(out_len.tolist()):
            outputs[row].append(log_probs[row, :frames])
    return [torch.cat(rows) for rows in outputs], caches


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(7, 150), min_size=1, max_size=3),
    chunk_frames=st.integers(2, 9),
    left_chunks=st.integers(1, 4),
    right_frames=st.sampled_from([0, 2]),
    seed=st.integers(0, 2**16),
    junk=st.sampled_from([0.0, 50.0, -1000.0]),
)
def test_stream_equals_masked_file(lengths, chunk_frames, left_chunks, right_frames, seed, junk):
    model = small_model(right_frames)
    x_BTF, len_B = files(lengths, seed, junk)
    with torch.inference_mode():
        masked_BTV, out_B = model.forward_masked(x_BTF, len_B, chunk_frames, left_chunks)
        streamed, caches = run_stream(model, x_BTF, len_B, chunk_frames, left_chunks, junk)
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
        together, out_B = model.forward_masked(x_BTF, len_B, chunk_frames, 2)
        alone, _ = model.forward_masked(x_BTF[:1, :length], len_B[:1], chunk_frames, 2)
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
    assert out_len.tolist() == [0, 4]
    assert torch.isfinite(log_probs).all()
    for before, now in zip(warm[:2], after[:2], strict=True):
        assert torch.equal(before[:, 0], now[:, 0])
        assert not torch.equal(before[:, 1], now[:, 1])
    assert after[2].tolist() == [4, 8]


def test_full_context_differs_from_masked():
    """The modes are distinct: with no chunk a frame does see its future."""
    model = small_model()
    x_BTF, len_B = files([120], 5, junk=0.0)
    with torch.inference_mode():
        full, _ = model.forward_full(x_BTF, len_B)
        masked, _ = model.forward_masked(x_BTF, len_B, 4, 2)
    assert (full - masked).abs().max() > 10 * TOLERANCE


def test_a_chunk_shorter_than_a_convolutions_look_ahead_is_refused():
    model = small_model(2)
    with pytest.raises(ConfigError, match="a chunk of 1 frames is shorter"):
        model.forward_masked(torch.zeros(1, 40, CONFIG.mel_bins), torch.tensor([40]), 1, 2)
