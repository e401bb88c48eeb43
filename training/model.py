"""The acoustic model: encoder and CTC head, in the modes *full*, *masked* and *stream*."""

from typing import Any

import torch
from torch import nn

from training.config import ModelConfig
from training.encoder import Caches, Encoder
from training.windows import encode_windows

Tensor = Any


class AcousticModel(nn.Module):
    """Normalised log-mel in, log-probabilities over tokens (blank 0) every 40 ms out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head = nn.Linear(config.d_model, config.vocab_size)

    def forward_full(self, x_BTF: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """Whole files, every frame sees all: ``log_probs_BTV``, ``out_len_B``."""
        encoded = self.encoder(x_BTF, len_B)
        return self.log_probs(encoded.final_BTD), encoded.len_B

    def forward_masked(
        self, x_BTF: Tensor, len_B: Tensor, chunk_frames: int, left_frames: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Whole files under the stream's view: equal to ``forward_chunk`` run chunk by chunk."""
        left = self.config.left_frames if left_frames is None else left_frames
        x_BTD, len_B = encode_windows(self.encoder, x_BTF, len_B, chunk_frames, left)
        return self.log_probs(x_BTD), len_B

    def forward_chunk(
        self,
        x_BTF: Tensor,
        x_len_B: Tensor,
        attn_cache_LBKE: Tensor,
        conv_cache_LBDK: Tensor,
        processed_len_B: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One chunk ``[B, 4C + 3, F]``; log_probs, the frames settled and the three new caches."""
        final_BCD, out_B, caches = self.encoder.forward_chunk(
            x_BTF, x_len_B, Caches(attn_cache_LBKE, conv_cache_LBDK, processed_len_B)
        )
        return self.log_probs(final_BCD), out_B, *caches

    def log_probs(self, x_BTD: Tensor) -> Tensor:
        """CTC head in float32."""
        return torch.log_softmax(self.head(x_BTD).float(), dim=-1)

    def initial_caches(self, rows: int, left_frames: int | None = None) -> tuple[Tensor, ...]:
        """``attn_cache, conv_cache, processed_len`` at the start of ``rows`` streams."""
        config = self.config
        left = config.left_frames if left_frames is None else left_frames
        like = self.head.weight
        return (
            like.new_zeros(config.layers, rows, left, 2 * config.d_model),
            like.new_zeros(config.layers, rows, config.d_model, config.kernel - 1),
            torch.zeros(rows, dtype=torch.int64, device=like.device),
        )

    def parameter_count(self) -> int:
        """Trainable numbers."""
        return sum(parameter.numel() for parameter in self.parameters())
