"""Speed, latency, memory and size of model variants, measured side by side on this machine.

Variants take turns recording by recording, so that whatever else the machine does hits them alike;
their ratio is formed within a repetition, before any averaging. One thread.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from features.bundle import Bundle
from governance.errors import AuricleError
from governance.records import Interval
from training.engines import Floats, stream_blocks
from training.onnx_engine import OnnxEngine, open_session, stream_step, zero_state

_HOP_S = 0.01
_RESAMPLES = 1000
_MB = 1e6

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Load:
    """A cold load in a process of its own."""

    load_s: float
    """Opening and verifying the bundle and its graphs."""
    memory_mb: float
    """Growth of resident memory over loading and a first recording of five seconds."""


@dataclass(frozen=True, kw_only=True)
class VariantFigures:
    """One variant as measured."""

    variant: str
    """ "fp32", "int8", "fp16"."""
    chunk_ms: int
    """Chunk of the streams that were measured."""
    bytes: int
    """All graphs on disk."""
    file_rtf: Interval
    """CPU-seconds per second of audio, whole files, median over repetitions."""
    stream_rtf: Interval
    """CPU-seconds per second of audio, chunk by chunk, median over repetitions."""
    chunk_p50_ms: float
    """Median wall time of a chunk."""
    chunk_p99_ms: float
    """99th percentile of the wall time of a chunk."""
    load: Load
    """A cold load."""
    file_speedup: Interval
    """CPU time of the first variant over this one's, whole files, paired by repetition."""
    stream_speedup: Interval
    """CPU time of the first variant over this one's, chunk by chunk, paired by repetition."""

    def figures(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)


def measure_variants(
    folders: Mapping[str, Path],
    features: Sequence[Floats],
    *,
    repetitions: int,
    seed: int,
    chunk_ms: int | None = None,
    progress: Progress | None = None,
) -> dict[str, VariantFigures]:
    """Measure bundles on the same normalised recordings; the first is what others are compared to.

    Streams run in the chunk that the service would choose for the first bundle, unless told
    otherwise. Gives plain figures by name; what they mean for a gate is the gate's to say.
    """
    if not folders or not features or repetitions < 1:
        raise AuricleError(
            "needs a bundle, a recording and a repetition", item="benchmark", mend="give them"
        )
    bundles = {name: Bundle.load(folder) for name, folder in folders.items()}
    chunk_ms = chunk_ms or next(iter(bundles.values())).config.default_chunk_ms
    timers = {name: _Timer(bundle, features, chunk_ms) for name, bundle in bundles.items()}
    for timer in timers.values():
        timer.warm_up()
    names = list(timers)
    for repetition in range(repetitions):
        for x_TF in features:
            for name in names:
                timers[name].time_one(x_TF)
            names.append(names.pop(0))
        for timer in timers.values():
            timer.close_repetition()
        if progress:
            progress(repetition + 1, repetitions)
    base = timers[next(iter(folders))]
    return {name: _figures(bundles[name], timer, base, seed) for name, timer in timers.items()}


class _Timer:
    """Collects the times of one variant."""

    def __init__(self, bundle: Bundle, features: Sequence[Floats], chunk_ms: int) -> None:
        self._engine = OnnxEngine(bundle, chunk_ms=chunk_ms)  # which refuses a chunk it lacks
        chunk = bundle.config.chunks[chunk_ms]
        self.stream_chunk_ms = chunk_ms
        self._session = open_session(bundle.path(chunk.file))
        self._chunk_frames = chunk.chunk_frames
        self._features = features
        self._audio_s = sum(len(x_TF) for x_TF in features) * _HOP_S
        self._file_s = self._stream_s = 0.0
        self.file_rtf: list[float] = []
        self.stream_rtf: list[float] = []
        self.chunk_ms: list[float] = []

    def warm_up(self) -> None:
        """First runs allocate; they are not counted."""
        for x_TF in self._features:
            self._engine.log_probs([x_TF], "full")
            self._stream(x_TF)
        self.chunk_ms.clear()

    def time_one(self, x_TF: Floats) -> None:
        """One recording as a file and as a stream."""
        start = time.process_time()
        self._engine.log_probs([x_TF], "full")
        middle = time.process_time()
        self._stream(x_TF)
        self._file_s += middle - start
        self._stream_s += time.process_time() - middle

    def close_repetition(self) -> None:
        """Turn the sums into real-time factors and start anew."""
        self.file_rtf.append(self._file_s / self._audio_s)
        self.stream_rtf.append(self._stream_s / self._audio_s)
        self._file_s = self._stream_s = 0.0

    def _stream(self, x_TF: Floats) -> None:
        state = zero_state(self._session, 1)
        for x_BTF, x_len in stream_blocks([x_TF], self._chunk_frames):
            start = time.perf_counter()
            _, _, state = stream_step(self._session, x_BTF, x_len, state)
            self.chunk_ms.append(1000 * (time.perf_counter() - start))


def _figures(bundle: Bundle, timer: _Timer, base: _Timer, seed: int) -> VariantFigures:
    config = bundle.config
    graphs = {config.offline, *(chunk.file for chunk in config.chunks.values())}
    return VariantFigures(
        variant=config.variant,
        chunk_ms=timer.stream_chunk_ms,
        bytes=sum(bundle.path(name).stat().st_size for name in graphs),
        file_rtf=median_interval(timer.file_rtf, seed=seed),
        stream_rtf=median_interval(timer.stream_rtf, seed=seed),
        chunk_p50_ms=float(np.percentile(timer.chunk_ms, 50)),
        chunk_p99_ms=float(np.percentile(timer.chunk_ms, 99)),
        load=cold_load(bundle.folder),
        file_speedup=median_interval(_ratios(base.file_rtf, timer.file_rtf), seed=seed),
        stream_speedup=median_interval(_ratios(base.stream_rtf, timer.stream_rtf), seed=seed),
    )


def _ratios(base: Sequence[float], own: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(base, own, strict=True)]


def median_interval(values: Sequence[float], *, seed: int) -> Interval:
    """Median with its 95 % bootstrap percentile interval over repetitions."""
    array = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(array), size=(_RESAMPLES, len(array)))
    low, high = np.percentile(np.median(array[picks], axis=1), [2.5, 97.5])
    return Interval(low=float(low), point=float(np.median(array)), high=float(high))


def cold_load(folder: Path) -> Load:
    """Load a bundle in a fresh process: seconds and memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_load, folder).result()


def _load(folder: Path) -> Load:
    before_mb = _resident_mb()
    start = time.perf_counter()
    bundle = Bundle.load(folder)
    engine = OnnxEngine(bundle, chunk_ms=min(bundle.config.chunks))
    load_s = time.perf_counter() - start
    bins = bundle.config.feature_spec.mel_bins
    engine.log_probs([np.zeros((500, bins), dtype=np.float32)], "full")
    return Load(load_s=load_s, memory_mb=_resident_mb() - before_mb)


def _resident_mb() -> float:
    return psutil.Process().memory_info().rss / _MB
