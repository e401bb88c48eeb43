"""Convolution that sees past frames freely and future ones only inside its chunk.

A stream therefore computes exactly what the masked whole file computes, needs no extra look-ahead,
and still uses the future that its chunk already holds. The kernel is dense: on CPU it trains and
quantises far better per second than a depthwise one with pointwise layers around it.
"""

from typing import Any

import torch
from torch import nn

from features.streaming import settled_frames
from governance.errors import ConfigError

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
        x_BTD = self.activate(x_BTD, keep_BT1)
        if cache_BDL is not None:
            seen_BSD = torch.cat((cache_BDL.transpose(1, 2), x_BTD), dim=1)
            settled = settled_frames(x_BTD.shape[1])
            new_cache_BDL = seen_BSD[:, settled : settled + self.left_frames].transpose(1, 2)
            return self.convolve(seen_BSD), new_cache_BDL
        if chunk_frames and self.right_frames:
            return self._convolve_chunks(x_BTD, chunk_frames), None
        return self.convolve(nn.functional.pad(x_BTD, (0, 0, self.left_frames, 0))), None

    def activate(self, x_BTD: Tensor, keep_BT1: Tensor) -> Tensor:
        """What the kernel sees: zeros where there is no frame."""
        return torch.relu(self.norm(x_BTD)).masked_fill(~keep_BT1, 0.0)

    def convolve(self, seen_BSD: Tensor) -> Tensor:
        """``left_frames`` of past then frames; zeros stand for the unseen future."""
        padded_BSD = nn.functional.pad(seen_BSD, (0, 0, 0, self.right_frames))
        # A channels-last image needs no copy, and CPU kernels are several times faster on it.
        image_BD1S = padded_BSD.unsqueeze(1).permute(0, 3, 1, 2)
        return self.kernel(image_BD1S).squeeze(2).transpose(1, 2)

    def _convolve_chunks(self, x_BTD: Tensor, chunk_frames: int) -> Tensor:
        """As over the whole file, less what the last frames of a chunk saw of the next one.

        Cheaper than a window per chunk, whose borders are computed twice.
        """
        _, frames, width = x_BTD.shape
        right, chunks = self.right_frames, -(-frames // chunk_frames)
        if chunk_frames < right:
            raise ConfigError(
                f"a chunk of {chunk_frames} frames is shorter than what a convolution sees ahead",
                item="train.chunk_frames, export.chunk_ms",
                mend=f"choose {right} frames or more, or a smaller train.model.conv_right_frames",
            )
        x_BSD = nn.functional.pad(x_BTD, (0, 0, self.left_frames, chunks * chunk_frames - frames))
        y_BTD = self.convolve(x_BSD).contiguous()
        seen_BNW = x_BSD[:, self.left_frames :].unflatten(1, (chunks, chunk_frames))[:, 1:, :right]
        excess_BNW = seen_BNW.flatten(2) @ self._across_the_end()
        y_BNCD = y_BTD.unflatten(1, (chunks, chunk_frames))
        y_BNCD[:, :-1, chunk_frames - right :] -= excess_BNW.unflatten(2, (right, width))
        return y_BTD[:, :frames]

    def _across_the_end(self) -> Tensor:
        """``[right * D, right * D]``: from a chunk's first frames to the last ones before them."""
        right = self.right_frames
        taps = self.kernel.weight.squeeze(2).permute(2, 1, 0)[self.left_frames + 1 :]  # in, out
        nothing = torch.zeros_like(taps[0])
        rows = [
            [taps[right - last + first - 1] if first <= last else nothing for last in range(right)]
            for first in range(right)
        ]
        return torch.cat([torch.cat(row, dim=1) for row in rows])
