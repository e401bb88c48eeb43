"""What evaluation asks of an acoustic engine, and how features are laid out for it.

An engine turns normalised log-mel features into per-frame log-probabilities. The same evaluation
runs a torch checkpoint, an ONNX bundle of any precision, or anything else with these two members.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from features.streaming import settled_frames
from training.config import OVERLAP_FRAMES, SUBSAMPLING

Mode = Literal["full", "masked", "stream"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SHORTEST_INPUT = SUBSAMPLING + OVERLAP_FRAMES  # the convolutions accept nothing shorter

StreamState = tuple[Floats, Floats, Ints]
"""attn_cache[L,B,left,2d], conv_cache[L,B,d,k-1], processed_len[B]."""
StreamStep = Callable[[Floats, Ints, StreamState], tuple[Floats, Ints, StreamState]]
"""x[B,4C+3,F], x_len[B], state -> log_probs[B,C,V], settled frames[B], state."""


class Engine(Protocol):
    """Features in, log-probabilities out."""

    @property
    def name(self) -> str:
        """What records and reports call it, for example "torch" or "onnx int8"."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes it can run."""

    def log_probs(self, features: Sequence[Floats], mode: Mode) -> list[Floats]:
        """One [T',V] array per [T,F] array, in order."""


def block_frames(chunk_frames: int) -> int:
    """Feature frames that one chunk of ``chunk_frames`` encoder frames needs."""
    return SUBSAMPLING * chunk_frames + OVERLAP_FRAMES


def pad_batch(features: Sequence[Floats]) -> tuple[Floats, Ints]:
    """x[B,T,F] with zeros after each row's end, and x_len[B]; T is what the graph can take."""
    lengths = np.array([len(x) for x in features], dtype=np.int64)
    frames = max(SHORTEST_INPUT, int(lengths.max()))
    batch = np.zeros((len(features), frames, features[0].shape[1]), dtype=np.float32)
    for row, x_TF in zip(batch, features, strict=True):
        row[: len(x_TF)] = x_TF
    return batch, lengths


def stream_blocks(features: Sequence[Floats], chunk_frames: int) -> Iterator[tuple[Floats, Ints]]:
    """The fixed blocks of a stream, all rows in step; a finished row gets length 0.

    A row is finished by its first block that is not full.
    """
    advance = SUBSAMPLING * settled_frames(chunk_frames)
    block = block_frames(chunk_frames)
    width = features[0].shape[1]
    longest = max(len(x) for x in features)
    for start in range(0, max(1, longest - OVERLAP_FRAMES), advance):
        x_BTF = np.zeros((len(features), block, width), dtype=np.float32)
        x_len = np.zeros(len(features), dtype=np.int64)
        for row, x_TF in enumerate(features):
            piece = x_TF[start : start + block]
            goes_on = start == 0 or len(x_TF) - (start - advance) >= block
            if goes_on and len(piece) > OVERLAP_FRAMES:
                x_BTF[row, : len(piece)] = piece
                x_len[row] = len(piece)
        yield x_BTF, x_len


def run_stream(
    step: StreamStep, state: StreamState, features: Sequence[Floats], chunk_frames: int
) -> list[Floats]:
    """Feed every row chunk by chunk and join what comes out."""
    pieces: list[list[Floats]] = [[] for _ in features]
    for x_BTF, x_len in stream_blocks(features, chunk_frames):
        log_probs, out_len, state = step(x_BTF, x_len, state)
        for row, count in enumerate(out_len):
            pieces[row].append(np.asarray(log_probs[row, : int(count)], dtype=np.float32))
    return [np.concatenate(row) for row in pieces]


def length_batches(lengths: Sequence[int], *, max_frames: int, max_rows: int) -> list[list[int]]:
    """Indices grouped by similar length, so that little is padding; deterministic."""
    batches: list[list[int]] = []
    current: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        full = len(current) >= max_rows or lengths[index] * (len(current) + 1) > max_frames
        if current and full:
            batches.append(current)
            current = []
        current.append(index)
    return [*batches, current] if current else batches
