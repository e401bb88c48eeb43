"""ONNX bundles as an evaluation engine: the very graphs that are served, run the way they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from features.bundle import Bundle, BundleError
from training.engines import Floats, Ints, Mode, StreamState, pad_batch, run_stream


def open_session(path: Path, *, threads: int = 1) -> Any:
    """A CPU session that never spins: on shared cores spinning threads cost tens of times more."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


def metadata(session: Any) -> dict[str, str]:
    """The graph's own metadata_props."""
    return dict(session.get_modelmeta().custom_metadata_map)


def run_offline(session: Any, features: Sequence[Floats]) -> list[Floats]:
    """Whole files in one padded batch."""
    x_BTF, x_len = pad_batch(features)
    log_probs, out_len = session.run(["log_probs", "out_len"], {"x": x_BTF, "x_len": x_len})
    return [log_probs[row, : int(count)] for row, count in enumerate(out_len)]


def stream_step(
    session: Any, x_BTF: Floats, x_len: Ints, state: StreamState
) -> tuple[Floats, Ints, StreamState]:
    """One chunk through the streaming graph."""
    feed = stream_feed(x_BTF, x_len, state)
    names = ["log_probs", "out_len", "new_attn_cache", "new_conv_cache", "new_processed_len"]
    log_probs, out_len, attn, conv, processed = session.run(names, feed)
    return log_probs, out_len, (attn, conv, processed)


def stream_feed(x_BTF: Floats, x_len: Ints, state: StreamState) -> dict[str, Any]:
    """The streaming graph's named inputs."""
    attn, conv, processed = state
    return {
        "x": x_BTF,
        "x_len": x_len,
        "attn_cache": attn,
        "conv_cache": conv,
        "processed_len": processed,
    }


def zero_state(session: Any, batch: int) -> StreamState:
    """Empty caches in the shapes that the graph declares."""
    shapes = {item.name: item.shape for item in session.get_inputs()}
    layers, _, left, width = shapes["attn_cache"]
    _, _, channels, kernel = shapes["conv_cache"]
    return (
        np.zeros((layers, batch, left, width), dtype=np.float32),
        np.zeros((layers, batch, channels, kernel), dtype=np.float32),
        np.zeros(batch, dtype=np.int64),
    )


class OnnxEngine:
    """A bundle's graphs behind the evaluation protocol.

    *masked* is not among its modes: it is torch's way to check *stream*, and no graph is shipped
    for it.
    """

    def __init__(self, bundle: Bundle, *, chunk_ms: int | None = None, threads: int = 1) -> None:
        config = bundle.config
        chunk_ms = config.default_chunk_ms if chunk_ms is None else chunk_ms
        if chunk_ms not in config.chunks:
            raise BundleError(
                f"has no stream graph for {chunk_ms} ms, only {sorted(config.chunks)}",
                item=str(bundle.folder),
                mend="name one of these, or export that chunk length too",
            )
        chunk = config.chunks[chunk_ms]
        self._variant = config.variant
        self._chunk_frames = chunk.chunk_frames
        self._offline = open_session(bundle.path(config.offline), threads=threads)
        self._stream = open_session(bundle.path(chunk.file), threads=threads)

    @property
    def name(self) -> str:
        """ "onnx fp32", "onnx int8"."""
        return f"onnx {self._variant}"

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Whole files and streams."""
        return ("full", "stream")

    def log_probs(self, features: Sequence[Floats], mode: Mode) -> list[Floats]:
        """One [T',V] array per [T,F] array, in order."""
        if mode == "full":
            return run_offline(self._offline, features)
        if mode == "stream":
            return run_stream(self._step, self._state(len(features)), features, self._chunk_frames)
        raise ValueError(f"{self.name} has no mode {mode!r}: it has {', '.join(self.modes)}")

    def _state(self, batch: int) -> StreamState:
        return zero_state(self._stream, batch)

    def _step(
        self, x_BTF: Floats, x_len: Ints, state: StreamState
    ) -> tuple[Floats, Ints, StreamState]:
        return stream_step(self._stream, x_BTF, x_len, state)
