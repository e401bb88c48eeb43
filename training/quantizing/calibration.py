"""Inputs on which ranges are measured: real recordings, and for streams the real caches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.engines import Floats, pad_batch, stream_blocks
from training.onnx_engine import open_session, stream_feed, stream_step, zero_state
from training.quantizing.graph import Feed

_ROWS = 8  # streams that advance together while caches are collected


def offline_feeds(features: Sequence[Floats]) -> list[Feed]:
    """Whole recordings one by one, so that no padding enters a range."""
    feeds = []
    for x_TF in features:
        x_BTF, x_len = pad_batch([x_TF])
        feeds.append({"x": x_BTF, "x_len": x_len})
    return feeds


def stream_feeds(
    graph: Path, features: Sequence[Floats], *, chunk_frames: int, chunks_per_stream: int
) -> list[Feed]:
    """Chunks of recordings with the caches that the fp32 graph had when it met them.

    The first chunk of every stream is kept, then chunks spread evenly to its end.
    """
    session = open_session(graph)
    ordered = sorted(features, key=len)
    feeds: list[Feed] = []
    for start in range(0, len(ordered), _ROWS):
        group = ordered[start : start + _ROWS]
        blocks = list(stream_blocks(group, chunk_frames))
        spread = np.linspace(0, len(blocks) - 1, num=min(chunks_per_stream, len(blocks)))
        kept = {round(float(position)) for position in spread}
        state = zero_state(session, len(group))
        for number, (x_BTF, x_len) in enumerate(blocks):
            if number in kept:
                feeds.append(stream_feed(x_BTF, x_len, state))
            _, _, state = stream_step(session, x_BTF, x_len, state)
    return feeds
