"""Convolution that sees past frames freely and future ones only inside its chunk.

A stream therefore computes exactly what the masked whole file computes, needs no extra look-ahead,
and still uses the future that its chunk already holds. The kernel is dense: on CPU it trains and
quantises far better per second than a depthwise one with pointwise layers around it.
"""

from typing import Any

import torch
from torch import nn

Tensor = Any


class Convolution(nn.Module):
    """Pre-activation residual branch: norm, ReLU, convolution over time."""

    def __init__(self, d_model: int, left_frames: int, right_frames: int) -> None:
        super().__init__()
        self.left_frames = left_frames
        self.right_frames = right_frames
        self.norm = nn.LayerNorm(d_model)
        self.kernel = nn.Conv2d(d_model, d_model, kernel_size=(1, left_frames + 1 + right_frames))

    def forward(
        self,
        x_BTD: Tensor,
        keep_BT1: Tensor,
        chunk_frames: int = 0,
        cache_BDL: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The branch's output and, in a stream, the next ``cache_BDL``."""
        x_BTD = torch.relu(self.norm(x_BTD)).masked_fill(~keep_BT1, 0.0)
        if cache_BDL is not None:
            seen_BSD = torch.cat((cache_BDL.transpose(1, 2), x_BTD), dim=1)
            new_cache_BDL = seen_BSD[:, x_BTD.shape[1] :].transpose(1, 2)
            return self._convolve(seen_BSD), new_cache_BDL
        if chunk_frames and self.right_frames:
            return self._convolve_chunks(x_BTD, chunk_frames), None
        return self._convolve(nn.functional.pad(x_BTD, (0, 0, self.left_frames, 0))), None

    def _convolve(self, seen_BSD: Tensor) -> Tensor:
        """``left_frames`` of past then frames; zeros stand for the unseen future."""
        padded_BSD = nn.functional.pad(seen_BSD, (0, 0, 0, self.right_frames))
        # A channels-last image needs no copy, and CPU kernels are several times faster on it.
        image_BD1S = padded_BSD.unsqueeze(1).permute(0, 3, 1, 2)
        return self.kernel(image_BD1S).squeeze(2).transpose(1, 2)

    def _convolve_chunks(self, x_BTD: Tensor, chunk_frames: int) -> Tensor:
        rows, frames, width = x_BTD.shape
        chunks = -(-frames // chunk_frames)
        x_BSD = nn.functional.pad(x_BTD, (0, 0, self.left_frames, chunks * chunk_frames - frames))
        windows_BNDS = x_BSD.unfold(1, self.left_frames + chunk_frames, chunk_frames)
        y_MCD = self._convolve(windows_BNDS.flatten(0, 1).transpose(1, 2))
        return y_MCD.reshape(rows, chunks * chunk_frames, width)[:, :frames]
