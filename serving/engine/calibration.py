"""What this machine can do with this bundle: measured while it warms up, before it says it is ready.

Every length bucket is run, alone and in a full batch, so no caller pays for a first call. The times
give the price of a recording, and the number of rows beyond which a batch is no faster per row. The
answer is kept in a file for the bundle and the machine; a restart then only warms up.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from serving import logs
from serving.engine.batcher import BatchLimits, Chunk
from serving.engine.engine import Engine
from serving.engine.slab import SlabFull

_BUDGET_S = 4.0  # of measuring; the warm-up is done whatever it takes
_ROWS = (1, 2, 4, 8, 16)
_ROW_FRAMES = 400
_GAIN = 1.05  # more rows must bring so much more audio per second
_STREAM_SHARE = 0.5  # of a chunk's length, at most, for one call over all ready streams
_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Measured figures, of the fastest of a few runs: what disturbs a run is not the machine."""

    per_call_s: float  # of a model call, whatever its length
    per_audio_s: float  # of a second of audio alone in its call
    max_rows: int  # of a file batch
    max_stream_rows: int

    def limits(self) -> BatchLimits:
        """What one model call may hold."""
        return BatchLimits(max_rows=self.max_rows, max_stream_rows=self.max_stream_rows)


def calibrated(
    engine: Engine,
    cache_dir: Path | None,
    *,
    of_before: Calibration | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Calibration:
    """Warm every bucket; the machine's figures, measured now or read from ``cache_dir``.

    Beside a model that serves, nothing can be measured: ``of_before``, its figures, stand then.
    """
    path = None if cache_dir is None else cache_dir / f"calibration-{_key(engine)}.json"
    found = None if path is None else read_calibration(path)
    times = _warm(engine, clock)
    calibration = found or of_before or _measured(engine, times, clock)
    _run(engine, _ROW_FRAMES, calibration.max_rows)
    measured = found is None and of_before is None
    if path is not None and measured:
        _write(path, calibration)
    logs.event("calibrated", outcome="measured" if measured else "kept")
    return calibration


def read_calibration(path: Path) -> Calibration | None:
    """A kept calibration; one that cannot be read is measured again."""
    try:
        return Calibration(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _warm(engine: Engine, clock: Callable[[], float]) -> list[tuple[float, float]]:
    """Run each bucket's longest row and a stream's chunk: (seconds of audio, seconds of work)."""
    times = []
    for frames in BatchLimits().bucket_frames:
        _run(engine, frames, 1)
        began = clock()
        _run(engine, frames, 1)
        times.append((frames / _frames_per_s(engine), clock() - began))
    _step(engine, 1)
    return times


def _measured(
    engine: Engine, times: Sequence[tuple[float, float]], clock: Callable[[], float]
) -> Calibration:
    ends = clock() + _BUDGET_S
    audio_s, spent_s = np.array(times).T
    per_audio_s, per_call_s = np.polyfit(audio_s, spent_s, 1)
    per_row = {
        rows: _fastest(partial(_run, engine, _ROW_FRAMES, rows), clock) / rows
        for rows in _ROWS
        if rows == 1 or clock() < ends
    }
    max_rows = 1
    for rows, seconds in per_row.items():
        if per_row[max_rows] / seconds >= _GAIN:
            max_rows = rows
    return Calibration(
        per_call_s=max(float(per_call_s), 1e-4),
        per_audio_s=max(float(per_audio_s), 1e-5),
        max_rows=max_rows,
        max_stream_rows=_stream_rows(engine, clock, ends),
    )


def _stream_rows(engine: Engine, clock: Callable[[], float], ends: float) -> int:
    """The most streams of one call that still answers within a share of a chunk."""
    most = _STREAM_SHARE * engine.advance_frames / _frames_per_s(engine)
    fits = 1
    for rows in _ROWS:
        if clock() >= ends:
            break
        try:
            if _fastest(partial(_step, engine, rows), clock) > most:
                break
        except SlabFull:
            break
        fits = rows
    return fits


def _fastest(call: Callable[[], None], clock: Callable[[], float]) -> float:
    times = []
    for _ in range(_REPEATS):
        began = clock()
        call()
        times.append(clock() - began)
    return min(times)


def _run(engine: Engine, frames: int, rows: int) -> None:
    engine.offline([np.zeros((frames, engine.mel_bins), np.float32)] * rows)


def _step(engine: Engine, count: int) -> None:
    quiet_TF = np.zeros((engine.chunk_frames, engine.mel_bins), np.float32)
    rows: list[int] = []
    try:
        for _ in range(count):
            rows.append(engine.slab.acquire())
        engine.step([Chunk(row=row, x_TF=quiet_TF, valid=len(quiet_TF)) for row in rows])
    finally:
        for row in rows:
            engine.slab.release(row)


def _frames_per_s(engine: Engine) -> float:
    return 1000 / engine.bundle.config.feature_spec.hop_ms


def _key(engine: Engine) -> str:
    """Of the bundle, the machine and how the engine runs."""
    facts = [
        engine.bundle.bundle_digest, platform.machine(), platform.processor(), str(os.cpu_count()),
        onnxruntime.__version__, repr(engine.options),
    ]  # fmt: skip
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _write(path: Path, calibration: Calibration) -> None:
    """Whole or not at all; a cache that cannot be written costs time at the next start only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(calibration), indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        logs.crash("calibration_not_kept", error)
