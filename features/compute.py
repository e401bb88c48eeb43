"""From recordings in shards to packs of features, on one process or several."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.audio import load_mono_16k
from data.manifest import Utterance
from data.shards import read_member
from features.cache import CacheEntry, FeatureCache, Halves, Key, write_pack
from features.fbank import log_mel
from features.spec import FeatureSpec

Progress = Callable[[int, int], None]
"""Called with (utterances done, utterances to do)."""

_BATCH_AUDIO_S = 600.0  # about 10 MB of features: one pack


@dataclass(frozen=True, kw_only=True)
class Job:
    """One recording and the speeds at which its features are missing."""

    utterance: Utterance
    speeds_permille: tuple[int, ...]


def compute_missing(
    jobs: Sequence[Job],
    shards_root: Path,
    spec: FeatureSpec,
    cache: FeatureCache,
    workers: int,
    progress: Progress,
) -> None:
    """Compute every job and add it to the cache, batch by batch: an interruption keeps the rest."""
    batches = list(_batches(jobs))
    done = 0
    progress(done, len(jobs))
    if workers <= 1 or len(batches) <= 1:
        for batch in batches:
            cache.add(_compute_batch(batch, shards_root, spec, cache.packs))
            done += len(batch)
            progress(done, len(jobs))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy held locks of threads
    pool = ProcessPoolExecutor(min(workers, len(batches)), mp_context=context)
    try:
        futures = {
            pool.submit(_compute_batch, batch, shards_root, spec, cache.packs): len(batch)
            for batch in batches
        }
        for future in as_completed(futures):
            cache.add(future.result())
            done += futures[future]
            progress(done, len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    batch: list[Job] = []
    audio_s = 0.0
    for job in jobs:
        batch.append(job)
        audio_s += job.utterance.duration_s * len(job.speeds_permille)
        if audio_s >= _BATCH_AUDIO_S:
            yield batch
            batch, audio_s = [], 0.0
    if batch:
        yield batch


def _compute_batch(
    batch: Sequence[Job], shards_root: Path, spec: FeatureSpec, packs: Path
) -> list[CacheEntry]:
    return write_pack(
        packs, (pair for job in batch for pair in _features_of(job, shards_root, spec))
    )


def _features_of(job: Job, shards_root: Path, spec: FeatureSpec) -> Iterator[tuple[Key, Halves]]:
    utterance = job.utterance
    content = read_member(shards_root, utterance.shard, utterance.offset, utterance.length)
    samples_T = load_mono_16k(content, name=utterance.utterance_id)
    for permille in job.speeds_permille:
        x_TF = log_mel(at_speed(samples_T, permille, spec.sample_rate_hz), spec)
        yield (utterance.utterance_id, permille), x_TF.astype(np.float16)


def at_speed(
    samples_T: NDArray[np.float32], speed_permille: int, rate_hz: int
) -> NDArray[np.float32]:
    """The recording played faster (above 1000) or slower: tempo and pitch change together."""
    if speed_permille == 1000:
        return samples_T
    import soxr

    resampled_T = soxr.resample(samples_T, rate_hz * speed_permille / 1000, rate_hz, quality="HQ")
    return np.asarray(resampled_T, np.float32)
