"""The *masked* mode: a whole file at once, under exactly the view that its stream has.

All chunks of a file side by side, each with the past that its stream would hold. It computes what
`Encoder.forward_chunk` computes chunk by chunk, by other means, and so checks it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from features.streaming import settled_frames
from training.attention import stream_bias
from training.encoder import Block, Encoder
from training.subsampling import output_frames, valid_frames

Tensor = Any

Past = Callable[[Tensor, int], Tensor]  # x_MCE of every chunk, frames -> what lies before each


def encode_windows(
    encoder: Encoder, x_BTF: Tensor, len_B: Tensor, chunk_frames: int, left_frames: int
) -> tuple[Tensor, Tensor]:
    """``x_BTD`` as a stream of ``chunk_frames`` settles it, and ``out_len_B``."""
    x_BTD, out_B = encoder.subsampling(x_BTF, len_B), output_frames(len_B)
    rows, frames, width = x_BTD.shape
    hop = settled_frames(chunk_frames)
    chunks = 1 + max(0, -(-(frames - chunk_frames) // hop)) + 1
    missing = (chunks - 1) * hop + chunk_frames - frames
    valid_BT = valid_frames(out_B, frames + missing)
    x_MCD = _windows(nn.functional.pad(x_BTD, (0, 0, 0, missing)), chunk_frames, hop)
    valid_MC = _windows(valid_BT[:, :, None], chunk_frames, hop).squeeze(2)
    past = partial(_past, rows=rows, hop=hop)
    processed_M = (torch.arange(chunks, device=x_BTD.device) * hop).repeat(rows)
    bias = stream_bias(valid_MC, processed_M, left_frames, x_BTD.dtype)
    table = encoder.rotary_table(left_frames + chunk_frames, x_BTD)
    for block in encoder.blocks:
        x_MCD = _block(block, x_MCD, valid_MC[:, :, None], bias, table, past, left_frames)
    settled = x_MCD.reshape(rows, chunks * chunk_frames, width)
    place_BT = _places(out_B, frames, chunk_frames, hop)
    x_BTD = torch.gather(settled, 1, place_BT[:, :, None].expand(-1, -1, width))
    return encoder.norm(x_BTD), out_B


def _block(
    block: Block, x_MCD: Tensor, keep_MC1: Tensor, bias: Tensor, table: Any, past: Past, left: int
) -> Tensor:
    for convolution in block.convolutions:
        heard_MCD = convolution.activate(x_MCD, keep_MC1)
        before_MLD = past(heard_MCD, convolution.left_frames)
        x_MCD = x_MCD + convolution.convolve(torch.cat((before_MLD, heard_MCD), dim=1))
    cache_MLE = past(block.attention.keys_values(x_MCD), left)
    y_MCD, _ = block.attention(x_MCD, bias, table, cache_MLE)
    x_MCD = x_MCD + y_MCD
    return x_MCD + block.feed_forward(x_MCD)


def _windows(x_BTE: Tensor, size: int, hop: int) -> Tensor:
    """``[B, N, size, E]`` with rows and windows flattened."""
    return x_BTE.unfold(1, size, hop).transpose(2, 3).flatten(0, 1)


def _past(x_MCE: Tensor, left: int, *, rows: int, hop: int) -> Tensor:
    """The ``left`` settled frames before each window; zeros before the file."""
    chunks = x_MCE.shape[0] // rows
    settled_BTE = x_MCE[:, :hop].reshape(rows, chunks * hop, -1)
    return (
        _windows(nn.functional.pad(settled_BTE, (0, 0, left, 0)), left, hop)
        .unflatten(0, (rows, -1))[:, :chunks]
        .flatten(0, 1)
    )


def _places(out_B: Tensor, frames: int, chunk_frames: int, hop: int) -> Tensor:
    """For each frame of a file, where the window that settles it holds it.

    A full window settles its first ``hop`` frames, the one after the last full one all it has.
    """
    full_B = (torch.div(out_B - chunk_frames, hop, rounding_mode="floor") + 1).clamp(min=0)
    frame_T = torch.arange(frames, device=out_B.device)
    window_BT = torch.minimum((frame_T // hop)[None, :], full_B[:, None])
    place_BT = window_BT * chunk_frames + frame_T[None, :] - window_BT * hop
    return place_BT.clamp(max=(full_B[:, None] + 1) * chunk_frames - 1)
