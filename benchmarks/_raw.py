"""What the machine can do without a service: the recogniser alone, and its bare graphs.

The recogniser takes a recording's bytes and gives its words: the same steps as in the service, in
one process with a thread for each core, in batches of the best size, with nothing around them. The
graph is one thread of ONNX Runtime on features that are there already.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._load import Clip
from features.bundle import Bundle
from serving.engine.batcher import Chunk
from serving.engine.engine import Engine, EngineOptions
from serving.front.cutter import Piece
from serving.front.warm_start import WarmStart
from serving.prepared import Prepared
from serving.recognizer import AudioRequest, AuricleRecognizer
from serving.service import SWITCH_S
from serving.streaming.request import StreamRequest
from serving.streaming.streams import LiveStream

_ROWS = (1, 4, 8)  # recordings of a batch
_GRAPH_ROWS = (1, 2, 4, 8, 16)
_STREAM_ROWS = (8, 16, 32)
_PIECES = 64
_STREAMS = 16  # of a thread
_RATE_HZ = 16_000


def recogniser_audio_per_s(bundle: Path, clips: list[Clip], seconds: float) -> float:
    """Seconds of audio that become words in a second, in batches of the best size."""
    found = Bundle.load(bundle)
    recognizer = AuricleRecognizer(Engine(found), WarmStart(found.config, None))
    sys.setswitchinterval(SWITCH_S)
    cores = len(os.sched_getaffinity(0))
    best = 0.0
    for rows in _ROWS:
        ends = time.perf_counter() + seconds / len(_ROWS)

        def drive(first: int, rows: int = rows, ends: float = ends) -> float:
            audio_s, turn = 0.0, first
            while time.perf_counter() < ends:
                batch = [clips[(turn + at) % len(clips)] for at in range(rows)]
                _recognise(recognizer, batch)
                audio_s += sum(clip.audio_s for clip in batch)
                turn += rows * cores
            return audio_s

        began = time.perf_counter()
        with ThreadPoolExecutor(cores) as pool:
            audio_s = sum(pool.map(drive, range(cores)))
        best = max(best, audio_s / (time.perf_counter() - began))
    return best


def graph_audio_per_s(bundle: Path, clip_s: float, seconds: float) -> float:
    """The bare whole-file graph on one thread, in batches of the best size."""
    engine = Engine(Bundle.load(bundle))
    frames = round(clip_s * 1000 / engine.bundle.config.feature_spec.hop_ms)
    piece_TF = np.zeros((frames, engine.mel_bins), np.float32)
    best = 0.0
    for rows in _GRAPH_ROWS:
        calls, began = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - began) < seconds / len(_GRAPH_ROWS):
            engine.offline([piece_TF] * rows)
            calls += 1
        best = max(best, calls * rows * clip_s / spent_s)
    return best


def recogniser_streams(bundle: Path, audio_T: NDArray[np.float32], seconds: float) -> float:
    """Live streams that the recogniser alone keeps up with: a thread for each core, batched steps."""
    found = Bundle.load(bundle)
    cores = len(os.sched_getaffinity(0))
    sys.setswitchinterval(SWITCH_S)
    content = (np.clip(audio_T, -1.0, 1.0) * 32767).astype("<i2").tobytes()
    request = StreamRequest(encoding="linear16", rate_hz=_RATE_HZ, channels=1)

    def drive(first: int) -> float:
        engine = Engine(found, EngineOptions(slots=_STREAMS))
        recognizer = AuricleRecognizer(engine, WarmStart(found.config, None))
        lives = [recognizer.open_live(request) for _ in range(_STREAMS)]
        begins = [(first + 37 * at) * 2 * _RATE_HZ % len(content) for at in range(_STREAMS)]
        size = 2 * engine.advance_frames * _RATE_HZ // 100
        ends, turns = time.perf_counter() + seconds, 0
        while time.perf_counter() < ends:
            _step(engine, lives, [
                content[(begin + turns * size) % (len(content) - size) :][:size]
                for begin in begins
            ])  # fmt: skip
            turns += 1
        return turns * size / 2 / _RATE_HZ * _STREAMS

    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        audio_s = sum(pool.map(drive, range(cores)))
    return audio_s / (time.perf_counter() - began)


def _step(engine: Engine, lives: list[LiveStream], contents: list[bytes]) -> None:
    """Every stream hears a hop; their chunks go to the model together until none is left."""
    asked = [(live, live.hear(content)) for live, content in zip(lives, contents, strict=True)]
    while waiting := [(live, progress.chunks) for live, progress in asked if progress.chunks]:
        answers = iter(engine.step([chunk for _, chunks in waiting for chunk in chunks]))
        asked = [(live, live.absorb([next(answers) for _ in chunks])) for live, chunks in waiting]


def graph_streams(bundle: Path, seconds: float) -> float:
    """Live streams that the bare streaming graph on one thread keeps up with."""
    best = 0.0
    for rows in _STREAM_ROWS:
        engine = Engine(Bundle.load(bundle), EngineOptions(slots=rows))
        hop_s = engine.advance_frames * engine.bundle.config.feature_spec.hop_ms / 1000
        x_TF = np.zeros((engine.chunk_frames, engine.mel_bins), np.float32)
        chunks = [Chunk(row=engine.slab.acquire(), x_TF=x_TF, valid=len(x_TF)) for _ in range(rows)]
        calls, began = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - began) < seconds / len(_STREAM_ROWS):
            engine.step(chunks)
            calls += 1
        best = max(best, calls * rows * hop_s / spent_s)
    return best


def _recognise(recognizer: AuricleRecognizer, batch: list[Clip]) -> None:
    """As the service does: features, one model call for all, words."""
    work: list[tuple[Prepared, Piece]] = []
    prepared = [recognizer.prepare(AudioRequest(content=clip.content)) for clip in batch]
    for one in prepared:
        work += [(one, piece) for piece in recognizer.next_pieces(one, _PIECES)]
    answers = recognizer.engine.offline([piece.x_TF for _, piece in work])
    for (one, piece), logp_TV in zip(work, answers, strict=True):
        recognizer.decode(one, piece, logp_TV)
    for one in prepared:
        recognizer.transcript(one)
