"""Two strided convolutions without padding in time: 4C + 3 feature frames become C."""

from typing import Any

import torch
from torch import nn

from training.config import OVERLAP_FRAMES, SUBSAMPLING

Tensor = Any


def output_frames(frames: Tensor) -> Tensor:
    """Encoder frames for a count of feature frames (int or tensor); never negative."""
    if isinstance(frames, int):
        return max(0, (frames - OVERLAP_FRAMES) // SUBSAMPLING)
    return torch.clamp(
        torch.div(frames - OVERLAP_FRAMES, SUBSAMPLING, rounding_mode="floor"), min=0
    )


def inputs_for(frames: int) -> int:
    """Fewest feature frames that give this many encoder frames."""
    return SUBSAMPLING * frames + OVERLAP_FRAMES


def valid_frames(len_B: Tensor, frames: int) -> Tensor:
    """``valid_BT``: True where a row has a real frame."""
    return torch.arange(frames, device=len_B.device)[None, :] < len_B[:, None]


class Subsampling(nn.Module):
    """Log-mel ``x_BTF`` at 10 ms to ``x_BTD`` at 40 ms; needs at least seven frames."""

    def __init__(self, mel_bins: int, d_model: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(mel_bins, d_model, kernel_size=3, stride=2)
        self.second = nn.Conv1d(d_model, d_model, kernel_size=3, stride=2)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x_BTF: Tensor, len_B: Tensor) -> Tensor:
        """Frames beyond ``len_B`` are zeroed first, whatever the padding holds."""
        keep_BT1 = valid_frames(len_B, x_BTF.shape[1])[:, :, None]
        x_BFT = x_BTF.masked_fill(~keep_BT1, 0.0).transpose(1, 2)
        x_BDT = nn.functional.silu(self.first(x_BFT))
        x_BDT = nn.functional.silu(self.second(x_BDT))
        return self.norm(x_BDT.transpose(1, 2))
