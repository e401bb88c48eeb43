"""ONNX Runtime sessions of a bundle: the whole-file graph and one streaming graph.

Called from one thread at a time (the batcher's). On CUDA the calls go through IO binding; that
path is exercised on the CPU provider by the tests and has not run on a GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from features.bundle import Bundle, ChunkGraph
from features.streaming import settled_frames
from governance.errors import AuricleError, ConfigError
from serving.engine.batcher import Chunk
from serving.engine.slab import CacheShape, StateSlab

Floats = NDArray[np.float32]
CONVOLUTION_FRAMES = 3  # input frames that the convolutions see beyond a chunk
MIN_FRAMES = 7  # input frames of one encoder frame
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_STREAM_OUTPUTS = ["log_probs", "out_len", "new_attn_cache", "new_conv_cache", "new_processed_len"]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the model runs; it never changes what comes out beyond rounding."""

    threads: int = 1  # of one call
    provider: str = "cpu"  # cpu or cuda
    chunk_ms: int | None = None  # None: the bundle's own choice
    slots: int = 32  # live streams side by side
    io_binding: bool = False  # bind inputs and outputs by name; always on with cuda


class Engine:
    """Runs a bundle's graphs on batches; holds the caches of live streams."""

    def __init__(self, bundle: Bundle, options: EngineOptions | None = None) -> None:
        self.options = options or EngineOptions()
        self.bundle = bundle
        config = bundle.config
        self.graph = _chunk_graph(bundle, self.options.chunk_ms)
        self.mel_bins = config.feature_spec.mel_bins
        self.vocabulary = bundle.token_table().size
        window = self.graph.chunk_frames
        self.advance_frames = config.subsampling * settled_frames(window)
        self.chunk_frames = config.subsampling * window + CONVOLUTION_FRAMES  # input of one call
        self.slab = StateSlab(
            CacheShape(
                layers=config.encoder.layers,
                left_frames=self.graph.left_frames,
                d_model=config.encoder.d_model,
                kernel=config.encoder.kernel,
            ),
            self.options.slots,
        )
        self._offline: Any = _session(bundle, config.offline, self.options)
        self._stream: Any = _session(bundle, self.graph.file, self.options)

    @property
    def providers(self) -> list[str]:
        """Execution providers in use, the preferred one first."""
        return list(self._offline.get_providers())

    def warm_up(self) -> None:
        """Run both graphs once, so that the first caller pays nothing and no broken one is served."""
        answers = self.offline([np.zeros((200, self.mel_bins), np.float32)])
        row = self.slab.acquire()
        try:
            quiet_TF = np.zeros((self.chunk_frames, self.mel_bins), np.float32)
            answers += self.step([Chunk(row=row, x_TF=quiet_TF, valid=self.chunk_frames)])
        finally:
            self.slab.release(row)
        if not all(np.isfinite(logp_TV).all() for logp_TV in answers):
            raise AuricleError(
                "its answer to silence is no number",
                item=str(self.bundle.folder),
                mend="export the model again",
            )

    def close(self) -> None:
        """Let go of the graphs at once, whoever still has this object. It answers no more."""
        self._offline = self._stream = None

    def offline(self, pieces: Sequence[Floats]) -> list[Floats]:
        """Log-probabilities [T', V] of whole pieces; too short a piece has none."""
        long_enough = [piece for piece in pieces if len(piece) >= MIN_FRAMES]
        if not long_enough:
            return [self._nothing() for _ in pieces]
        longest = max(len(piece) for piece in long_enough)
        x_BTF = np.zeros((len(long_enough), longest, self.mel_bins), np.float32)
        for row, piece in enumerate(long_enough):
            x_BTF[row, : len(piece)] = piece
        x_len_B = np.array([len(piece) for piece in long_enough], np.int64)
        inputs: dict[str, NDArray[Any]] = {"x": x_BTF, "x_len": x_len_B}
        logp_BTV, out_len_B = self._run(self._offline, ["log_probs", "out_len"], inputs)
        answers = iter(zip(logp_BTV, out_len_B, strict=True))
        return [
            _valid_rows(*next(answers)) if len(piece) >= MIN_FRAMES else self._nothing()
            for piece in pieces
        ]

    def step(self, chunks: Sequence[Chunk]) -> list[Floats]:
        """Advance many live streams by one chunk each."""
        rows = [chunk.row for chunk in chunks]
        attn_LBTD, conv_LBDK, processed_B = self.slab.gather(rows)
        inputs: dict[str, NDArray[Any]] = {
            "x": np.stack([chunk.x_TF for chunk in chunks]),
            "x_len": np.array([chunk.valid for chunk in chunks], np.int64),
            "attn_cache": attn_LBTD,
            "conv_cache": conv_LBDK,
            "processed_len": processed_B,
        }
        logp_BCV, out_len_B, attn, conv, processed = self._run(
            self._stream, _STREAM_OUTPUTS, inputs
        )
        self.slab.scatter(rows, attn, conv, processed)
        return [_valid_rows(logp, count) for logp, count in zip(logp_BCV, out_len_B, strict=True)]

    def _nothing(self) -> Floats:
        return np.empty((0, self.vocabulary), np.float32)

    def _run(
        self, session: Any, outputs: list[str], inputs: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        if not (self.options.io_binding or self.options.provider == "cuda"):
            return list(session.run(outputs, dict(inputs)))
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in outputs:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())


def _valid_rows(logp_TV: NDArray[Any], count: Any) -> Floats:
    """The real frames, copied, so that a batch's memory goes when its rows have gone."""
    return np.array(logp_TV[: int(count)], np.float32)


def _chunk_graph(bundle: Bundle, chunk_ms: int | None) -> ChunkGraph:
    chunks = bundle.config.chunks
    chunk_ms = bundle.config.default_chunk_ms if chunk_ms is None else chunk_ms
    if chunk_ms not in chunks:
        raise ConfigError(
            f"has no streaming graph for {chunk_ms} ms",
            item=str(bundle.folder),
            mend=f"choose one of {sorted(chunks)} ms",
        )
    return chunks[chunk_ms]


def _session(bundle: Bundle, name: str, options: EngineOptions) -> Any:
    path = bundle.path(name)
    providers = _providers(options.provider)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # Spinning threads on busy cores cost ten to fifty times what they save.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=settings, providers=providers
        )
    except Exception as error:  # ONNX Runtime's errors share no base class but Exception
        raise AuricleError(
            f"ONNX Runtime cannot load it ({type(error).__name__})",
            item=str(path),
            mend="export the model again with this release",
        ) from error
    _check_metadata(session, bundle, path)
    return session


def _providers(wanted: str) -> list[str]:
    if wanted not in _PROVIDERS:
        raise ConfigError(f"{wanted!r} is not cpu or cuda", item="provider")
    if wanted == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA from the wheels beside onnxruntime-gpu
    available = onnxruntime.get_available_providers()
    if _PROVIDERS[wanted] not in available:
        raise ConfigError(
            f"this onnxruntime has no {_PROVIDERS[wanted]}",
            item="provider",
            mend="install onnxruntime-gpu in place of onnxruntime, or choose cpu",
        )
    return [_PROVIDERS[wanted]] if wanted == "cpu" else [_PROVIDERS[wanted], _PROVIDERS["cpu"]]


def _check_metadata(session: Any, bundle: Bundle, path: Path) -> None:
    """A graph that was made for other features or tokens is refused, not run."""
    found = session.get_modelmeta().custom_metadata_map
    expected = {
        "feature_fingerprint": bundle.config.feature_fingerprint,
        "token_digest": bundle.config.token_digest,
    }
    for key, value in expected.items():
        if found.get(key) != value:
            raise ConfigError(
                f"{key} is {found.get(key)!r}, the bundle says {value!r}",
                item=str(path),
                mend="export the model again: graph and bundle must come from one run",
            )
