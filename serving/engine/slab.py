"""The caches of all live streams side by side, so that one model call steps many of them."""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governance.errors import AuricleError


class SlabFull(AuricleError):
    """Every row is taken by an open stream."""


@dataclass(frozen=True, kw_only=True)
class CacheShape:
    """Sizes of one stream's caches."""

    layers: int
    left_frames: int
    d_model: int
    kernel: int


class StateSlab:
    """Rows of encoder state. The model thread reads and writes rows; a row's owner resets it.

    A stream never has two steps in flight, so a row is touched by one thread at a time.
    """

    def __init__(self, shape: CacheShape, capacity: int) -> None:
        layers, left, width = shape.layers, shape.left_frames, shape.d_model
        self.attn_LBTD = np.zeros((layers, capacity, left, 2 * width), np.float32)
        self.conv_LBDK = np.zeros((layers, capacity, width, shape.kernel - 1), np.float32)
        self.processed_B = np.zeros(capacity, np.int64)
        self.capacity = capacity
        self._free = list(range(capacity - 1, -1, -1))
        self._lock = threading.Lock()

    @property
    def in_use(self) -> int:
        """Rows taken."""
        return self.capacity - len(self._free)

    def acquire(self) -> int:
        """A clean row of one's own."""
        with self._lock:
            if not self._free:
                raise SlabFull(f"All {self.capacity} live streams are taken.")
            row = self._free.pop()
        self.reset(row)
        return row

    def release(self, row: int) -> None:
        """Give a row back; what it held is wiped, so nothing of one caller reaches the next."""
        self.reset(row)
        with self._lock:
            assert row not in self._free
            self._free.append(row)

    def reset(self, row: int) -> None:
        """Forget everything heard on this row."""
        self.attn_LBTD[:, row] = 0.0
        self.conv_LBDK[:, row] = 0.0
        self.processed_B[row] = 0

    def gather(
        self, rows: list[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Copies of the rows, in the order asked for."""
        return self.attn_LBTD[:, rows], self.conv_LBDK[:, rows], self.processed_B[rows]

    def scatter(
        self,
        rows: list[int],
        attn_LBTD: NDArray[np.float32],
        conv_LBDK: NDArray[np.float32],
        processed_B: NDArray[np.int64],
    ) -> None:
        """Write the rows' new state back."""
        self.attn_LBTD[:, rows] = attn_LBTD
        self.conv_LBDK[:, rows] = conv_LBDK
        self.processed_B[rows] = processed_B
