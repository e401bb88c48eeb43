"""Conformer-style encoder with chunked attention: the same weights for file and stream."""

from typing import Any, NamedTuple

import torch
from torch import nn

from features.streaming import settled_frames
from training.attention import Attention, file_bias, rotary_table, stream_bias
from training.config import ModelConfig
from training.convolution import Convolution
from training.subsampling import Subsampling, output_frames, valid_frames

Tensor = Any


class Encoded(NamedTuple):
    """What the encoder makes of a batch of files."""

    final_BTD: Tensor  # after the last block
    middle_BTD: Tensor | None  # after `middle_layer`, for the intermediate CTC
    len_B: Tensor  # encoder frames per row


class Caches(NamedTuple):
    """What a stream carries from chunk to chunk."""

    attention_LBKE: Tensor  # unrotated keys and values of the last `left_frames` frames
    convolution_LBDK: Tensor  # the last inputs of each block's convolutions, end to end
    processed_B: Tensor  # encoder frames seen so far


class ChannelDropout(nn.Module):
    """Drops a channel for a whole recording: a thousandth of the random numbers of `Dropout`."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Identity outside training."""
        if not self.training or self.share == 0:
            return x_BTD
        keep_B1D = torch.rand(x_BTD.shape[0], 1, x_BTD.shape[2], device=x_BTD.device) >= self.share
        return x_BTD * (keep_B1D / (1.0 - self.share)).to(x_BTD.dtype)


class FeedForward(nn.Module):
    """Pre-norm position-wise branch."""

    def __init__(self, d_model: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.widen = nn.Linear(d_model, expansion * d_model)
        self.narrow = nn.Linear(expansion * d_model, d_model)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """One branch; the caller adds it to the residual stream."""
        return self.narrow(torch.relu(self.widen(self.norm(x_BTD))))


class Block(nn.Module):
    """Convolutions, attention, feed-forward: each a residual branch, normalised at its entry."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.left_frames = config.conv_left_frames
        self.convolutions = nn.ModuleList(
            Convolution(config.d_model, config.conv_left_frames, config.conv_right_frames)
            for _ in range(config.convolutions)
        )
        self.attention = Attention(config.d_model, config.heads)
        self.feed_forward = FeedForward(config.d_model, config.ff_expansion)
        self.dropout = ChannelDropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        bias_B1QK: Tensor,
        table: tuple[Tensor, Tensor],
        keep_BT1: Tensor,
        chunk_frames: int = 0,
        caches: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Frames, keys and values (cache included), next caches of the convolutions."""
        attention_cache, pasts = None, [None] * len(self.convolutions)
        if caches is not None:
            attention_cache, pasts = caches[0], caches[1].split(self.left_frames, dim=2)
        new_pasts = []
        for convolution, past_BDL in zip(self.convolutions, pasts, strict=True):
            y_BTD, new_past_BDL = convolution(x_BTD, keep_BT1, chunk_frames, past_BDL)
            new_pasts.append(new_past_BDL)
            x_BTD = x_BTD + self.dropout(y_BTD)
        y_BTD, kv_BKE = self.attention(x_BTD, bias_B1QK, table, attention_cache)
        x_BTD = x_BTD + self.dropout(y_BTD)
        x_BTD = x_BTD + self.dropout(self.feed_forward(x_BTD))
        return x_BTD, kv_BKE, new_pasts


class Encoder(nn.Module):
    """Subsampling and blocks, in three modes that share every weight."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config.mel_bins, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(
        self, x_BTF: Tensor, len_B: Tensor, chunk_frames: int = 0, left_chunks: int = 0
    ) -> Encoded:
        """A batch of whole files: *full* with ``chunk_frames`` 0, otherwise training's chunk mask.

        The mask is plain chunks side by side, half the work of the *masked* mode, which sees what
        a stream sees (`training.windows`).
        """
        x_BTD = self.subsampling(x_BTF, len_B)
        out_B = output_frames(len_B)
        valid_BT = valid_frames(out_B, x_BTD.shape[1])
        bias_B1QK = file_bias(valid_BT, chunk_frames, left_chunks, x_BTD.dtype)
        table = self.rotary_table(x_BTD.shape[1], x_BTD)
        middle_BTD = None
        for number, block in enumerate(self.blocks, start=1):
            x_BTD, _, _ = block(x_BTD, bias_B1QK, table, valid_BT[:, :, None], chunk_frames)
            if number == self.config.middle_layer:
                middle_BTD = self.norm(x_BTD)
        return Encoded(self.norm(x_BTD), middle_BTD, out_B)

    def forward_chunk(
        self, x_BTF: Tensor, len_B: Tensor, caches: Caches
    ) -> tuple[Tensor, Tensor, Caches]:
        """One chunk of a stream: ``final_BCD``, ``settled_B`` and the next caches.

        A full chunk settles the first ``settled_frames(C)``: the next one begins behind them. A
        row with fewer than 4C + 3 frames ends its stream, settles all that it has, and its caches
        hold padding afterwards; a row with ``len_B`` 0 keeps its caches.
        """
        attention_LBKE, convolution_LBDK, processed_B = caches
        x_BCD = self.subsampling(x_BTF, len_B)
        out_B, chunk = output_frames(len_B), x_BCD.shape[1]
        hop = settled_frames(chunk)
        settled_B = torch.where(out_B < chunk, out_B, hop)
        valid_BC = valid_frames(out_B, chunk)
        left = attention_LBKE.shape[2]
        bias_B11K = stream_bias(valid_BC, processed_B, left, x_BCD.dtype)
        table = self.rotary_table(left + chunk, x_BCD)
        keys, kernels = [], []
        for block, kv_BLE, kernel_BDK in zip(
            self.blocks, attention_LBKE.unbind(0), convolution_LBDK.unbind(0), strict=True
        ):
            x_BCD, kv_BKE, new_pasts = block(
                x_BCD, bias_B11K, table, valid_BC[:, :, None], caches=(kv_BLE, kernel_BDK)
            )
            keys.append(kv_BKE[:, hop : hop + left])
            kernels.append(torch.cat(new_pasts, dim=2))
        active_B11 = (out_B > 0)[:, None, None]
        new_caches = Caches(
            torch.where(active_B11, torch.stack(keys), attention_LBKE),
            torch.where(active_B11, torch.stack(kernels), convolution_LBDK),
            processed_B + settled_B,
        )
        return self.norm(x_BCD), settled_B, new_caches

    def rotary_table(self, frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for as many positions."""
        return rotary_table(frames, self.config.d_model // self.config.heads, like)
