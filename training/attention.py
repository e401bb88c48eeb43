"""Self-attention with rotary positions whose past is a cache of unrotated keys and values.

Scores depend on the distance between frames only, so keys are cached unrotated and turned inside
the window: a stream of any length uses the same small angles, and a traced graph holds constants.
"""

from typing import Any

import torch
from torch import nn

Tensor = Any

FORBIDDEN = -1.0e4  # finite: a row without any allowed key stays a number; fits float16


def rotary_table(frames: int, head_width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[frames, head_width / 2]`` for positions 0 .. frames - 1."""
    pairs = torch.arange(head_width // 2, device=like.device, dtype=torch.float32)
    speeds = torch.exp(pairs * (-9.210340371976184 / (head_width // 2)))  # 10000 ** (-i / pairs)
    angles = torch.arange(frames, device=like.device, dtype=torch.float32)[:, None] * speeds
    return torch.cos(angles).to(like.dtype), torch.sin(angles).to(like.dtype)


def rotate(x_BHTE: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (first half, second half) of a head by its frame's angle."""
    cos_TP, sin_TP = table
    a, b = x_BHTE.chunk(2, dim=-1)
    return torch.cat((a * cos_TP - b * sin_TP, a * sin_TP + b * cos_TP), dim=-1)


def file_bias(valid_BT: Tensor, chunk_frames: int, left_chunks: int, dtype: torch.dtype) -> Tensor:
    """Additive ``bias_B1QK`` for a whole file: zero where a query may see a key.

    ``chunk_frames`` 0 lets every frame see the whole file; otherwise a frame sees its own chunk to
    its end and ``left_chunks`` chunks before it.
    """
    allowed_BQK = valid_BT[:, None, :]
    if chunk_frames:
        chunk_T = torch.arange(valid_BT.shape[1], device=valid_BT.device) // chunk_frames
        age_QK = chunk_T[:, None] - chunk_T[None, :]
        allowed_BQK = allowed_BQK & ((age_QK >= 0) & (age_QK <= left_chunks))[None]
    return torch.where(allowed_BQK, 0.0, FORBIDDEN).to(dtype)[:, None]


def stream_bias(
    valid_BC: Tensor, processed_B: Tensor, left_frames: int, dtype: torch.dtype
) -> Tensor:
    """Additive ``bias_B11K`` over cache and chunk: forbids unwritten slots and padding."""
    slot_L = torch.arange(left_frames, device=valid_BC.device)
    written_BL = slot_L[None, :] >= left_frames - processed_B[:, None]
    allowed_BK = torch.cat((written_BL, valid_BC), dim=1)
    return torch.where(allowed_BK, 0.0, FORBIDDEN).to(dtype)[:, None, None]


class Attention(nn.Module):
    """Pre-norm multi-head self-attention over ``[cache | frames]``."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(d_model)
        self.project_in = nn.Linear(d_model, 3 * d_model)
        self.project_out = nn.Linear(d_model, d_model)
        nn.init.zeros_(self.project_out.weight)  # begin as a convolutional net: it aligns sooner

    def forward(
        self,
        x_BTD: Tensor,
        bias_B1QK: Tensor,
        table: tuple[Tensor, Tensor],
        cache_BLE: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The branch's output and ``keys_values_BKE``: cache and frames, keys unrotated."""
        q_BTD, new_BTE = self._project(x_BTD)
        kv_BKE = new_BTE if cache_BLE is None else torch.cat((cache_BLE, new_BTE), dim=1)
        k_BKD, v_BKD = kv_BKE.chunk(2, dim=2)
        past = kv_BKE.shape[1] - x_BTD.shape[1]
        q_BHTE = rotate(self._split(q_BTD), (table[0][past:], table[1][past:]))
        k_BHKE = rotate(self._split(k_BKD), table)
        kind = v_BKD.dtype  # under autocast the rotation may have widened queries and keys
        y_BHTE = nn.functional.scaled_dot_product_attention(
            q_BHTE.to(kind), k_BHKE.to(kind), self._split(v_BKD), attn_mask=bias_B1QK.to(kind)
        )
        return self.project_out(y_BHTE.transpose(1, 2).flatten(2)), kv_BKE

    def keys_values(self, x_BTD: Tensor) -> Tensor:
        """``[B, T, 2D]``, keys unrotated: what a stream caches of these frames."""
        return self._project(x_BTD)[1]

    def _project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        d_model = x_BTD.shape[2]
        q_BTD, kv_BTE = self.project_in(self.norm(x_BTD)).split((d_model, 2 * d_model), dim=2)
        return q_BTD, kv_BTE

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.heads, -1)).transpose(1, 2)
