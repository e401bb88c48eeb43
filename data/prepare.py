"""One source item in, one utterance with its stored bytes out: the part that runs in parallel."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from data.audio import Audio, decode, encode_pcm16, to_mono_16k, to_pcm16
from data.duplicates import Fingerprint, fingerprint
from data.ids import speaker_pseudonym, utterance_id
from data.manifest import Utterance
from data.profile import profile
from data.sources.item import Problem, SourceItem
from data.text import NORMALISER_VERSION, foreign_characters, normalise
from data.units import SAMPLE_RATE_HZ, seconds_to_samples
from governance.canonical import digest, file_digest
from governance.errors import AuricleError

_IN_FLIGHT_PER_WORKER = 4


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker needs to prepare one recording."""

    item: SourceItem
    """The recording."""
    corpus: str
    """Name of the corpus."""
    max_duration_s: float
    """Longest recording to accept."""
    fingerprinted: bool
    """Whether to compute the fingerprint for near duplicates."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A recording that is ready to be stored; its shard is not yet known."""

    utterance: Utterance
    """The manifest's row, without shard and offset."""
    stored: bytes
    """The stored form: PCM16 as FLAC (as WAV beyond 8 channels), native rate and channels."""
    fingerprint: Fingerprint | None
    """For near duplicates, if asked for."""
    notes: tuple[Problem, ...]
    """What was mended on the way."""


def prepare(job: Job) -> Prepared | Problem:
    """Decode, name, measure and encode; what cannot be used comes back as a named problem."""
    item = job.item
    try:
        audio = _excerpt(item, job.max_duration_s)
        refusal = _refusal(item, audio)
        return refusal or _prepared(job, audio)
    except AuricleError as error:
        return Problem(
            item=item.origin, message=f"{item.path.name}: {error.message}", mend=error.mend or ""
        )
    except OSError as error:
        return Problem(
            item=item.origin,
            message=f"{item.path.name}: cannot be read ({error})",
            mend="check the disk and the file's permissions",
        )


def prepare_all(jobs: Iterable[Job], *, workers: int) -> Iterator[Prepared | Problem]:
    """``prepare`` over all jobs, in their order, holding only a few results at a time."""
    if workers <= 1:
        yield from map(prepare, jobs)
        return
    # spawn: a forked child would inherit the decoders' threads and locks in an unknown state.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[Prepared | Problem]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(prepare, job))
                if len(waiting) >= workers * _IN_FLIGHT_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise AuricleError(
                "a worker process died while reading audio; memory may have run out",
                mend="use fewer workers or a lower duration limit",
            ) from error


def described(item: SourceItem, corpus: str) -> dict[str, Any]:
    """The fields of a manifest row that follow from the source's words and not from its samples."""
    return {
        "corpus": corpus,
        "text": item.text,
        "normalised_text": normalise(item.text),
        "normaliser": NORMALISER_VERSION,
        "speaker": speaker_pseudonym(corpus, item.speaker),
        "language": item.language,
        "split": item.split,
        "licence": item.licence,
        "consent": item.consent,
        "source": item.source,
    }


def source_digest(item: SourceItem) -> str:
    """Digest of the delivered bytes; of bytes and times where the item is a part of a file."""
    whole = file_digest(item.path)
    if not _is_part(item):
        return whole
    return digest({"file": whole, "start_s": item.start_s, "end_s": item.end_s})


def _prepared(job: Job, audio: Audio) -> Prepared:
    item = job.item
    stored = encode_pcm16(audio.samples_TC, audio.rate_hz)
    mono_T = to_mono_16k(audio)
    measured = asdict(profile(mono_T, SAMPLE_RATE_HZ)) | {"duration_s": audio.duration_s}
    pcm16 = to_pcm16(audio.samples_TC).astype("<i2").tobytes()
    utterance = Utterance(
        utterance_id=utterance_id(pcm16, audio.rate_hz, audio.channels),
        shard="",
        offset=0,
        length=len(stored),
        source_digest=source_digest(item),
        native_format=f"{audio.container}/{audio.codec}",
        native_rate_hz=audio.rate_hz,
        native_channels=audio.channels,
        **described(item, job.corpus),
        **measured,
    )
    return Prepared(
        utterance=utterance,
        stored=stored,
        fingerprint=fingerprint(mono_T) if job.fingerprinted else None,
        notes=tuple(_notes(item, audio)),
    )


def _refusal(item: SourceItem, audio: Audio) -> Problem | None:
    if audio.truncated:
        return Problem(
            item=item.origin,
            message=f"{item.path.name}: is cut off or damaged; {audio.duration_s:.2f} s are left, "
            "which its transcript does not describe",
            mend="fetch the file again",
        )
    if not normalise(item.text):
        return Problem(
            item=item.origin,
            message="nothing of its transcript can be spelt with the model's letters",
            mend="transcribe it in the Latin alphabet, or drop the row",
        )
    return None


def _notes(item: SourceItem, audio: Audio) -> Iterator[Problem]:
    if audio.repaired_samples:
        message = f"{audio.repaired_samples} samples that were no numbers became silence"
        yield Problem(item=item.origin, message=message, severity="noted")
    foreign = foreign_characters(item.text)
    if foreign:
        message = f"its transcript has characters that nobody can spell: {' '.join(foreign)}"
        yield Problem(
            item=item.origin, message=message, mend="write them out in words", severity="noted"
        )


def _is_part(item: SourceItem) -> bool:
    return item.start_s > 0 or item.end_s is not None


def _excerpt(item: SourceItem, max_duration_s: float) -> Audio:
    if not _is_part(item):
        return decode(item.path, name=item.path.name, max_duration_s=max_duration_s)
    audio = _decode_whole(item.path)
    first = seconds_to_samples(item.start_s, audio.rate_hz)
    last = len(audio.samples_TC)
    if item.end_s is not None:
        last = min(last, seconds_to_samples(item.end_s, audio.rate_hz))
    if first >= last:
        raise AuricleError(
            f"lasts {audio.duration_s:.2f} s; the part from {item.start_s} s lies behind its end",
            mend="mend the times in segments",
        )
    if last - first > max_duration_s * audio.rate_hz:
        raise AuricleError(f"has a part longer than the {max_duration_s:,.0f} s allowed")
    return Audio(
        samples_TC=audio.samples_TC[first:last],
        rate_hz=audio.rate_hz,
        container=audio.container,
        codec=audio.codec,
        repaired_samples=audio.repaired_samples,
    )


@functools.lru_cache(maxsize=1)
def _decode_whole(path: Path) -> Audio:
    """Parts of one recording follow each other: decode it once for all of them."""
    return decode(path, name=path.name)
