"""Load on a service: paced live streams and files in open-loop arrivals, and what came of them.

Open loop means that a file is sent when its moment has come, however slow the answers are, and its
latency counts from that moment: a service that falls behind cannot slow its own test down.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from data.units import SAMPLE_RATE_HZ
from serving.client import Client, ServiceError
from serving.live_client import Message, Talk, converse, paced

_MOST_WAITING = 1024  # files in flight at once; threads, so that every arrival leaves in time
_Z95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording to send."""

    path: Path
    pcm: bytes  # 16 kHz linear16

    @property
    def duration_s(self) -> float:
        """Seconds of sound."""
        return len(self.pcm) / 2 / SAMPLE_RATE_HZ


@dataclass(kw_only=True)
class Tally:
    """What the service did; seconds, in order of arrival."""

    wall_s: float = 0.0
    cpu_s: float = 0.0  # of this process: a generator at its limit measures itself
    latency_s: list[float] = field(default_factory=list)  # of files, from their moment of arrival
    first_s: list[float] = field(default_factory=list)  # of streams, to the first text
    lag_s: list[float] = field(default_factory=list)  # of finals, behind the sound that they cover
    closing_s: list[float] = field(default_factory=list)  # from the end of sound to the last result
    answered: int = 0
    answered_audio_s: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)  # 429, 503: the service said no
    failed: Counter[str] = field(default_factory=Counter)

    def book_error(self, error: ServiceError) -> None:
        """A refusal is an answer; anything else is a failure."""
        status = next((part for part in ("429", "503") if f"answered {part}" in str(error)), "")
        if status:
            self.refused[status] += 1
        else:
            self.failed[error.message[:60]] += 1


async def streams(
    url: str, recordings: Sequence[Recording], *, count: int, seconds: float, api_key: str = ""
) -> Tally:
    """``count`` people who speak all the time, one recording after the other."""
    tally = Tally()
    began_s, cpu_s = time.perf_counter(), time.process_time()

    async def person(number: int) -> None:
        await asyncio.sleep(number * 0.1 % 1.0)  # no two begin at the same moment
        at = number
        while (left_s := seconds - (time.perf_counter() - began_s)) > 0:
            await _stream(url, recordings[at % len(recordings)].pcm, left_s, api_key, tally)
            at += count

    await asyncio.gather(*(person(number) for number in range(count)))
    tally.wall_s = time.perf_counter() - began_s
    tally.cpu_s = time.process_time() - cpu_s
    return tally


async def _stream(url: str, pcm: bytes, left_s: float, api_key: str, tally: Tally) -> None:
    pcm = pcm[: max(2, 2 * round(left_s * SAMPLE_RATE_HZ))]
    duration_s = len(pcm) / 2 / SAMPLE_RATE_HZ
    seen: list[float] = []

    def tell(message: Message, talk: Talk) -> None:
        if message["type"] != "Results":
            return
        now_s = time.perf_counter()
        said = message["channel"]["alternatives"][0]["transcript"]
        if said and not seen:
            seen.append(now_s)
            tally.first_s.append(now_s - talk.began_s)
        if message["is_final"] and talk.audio_s < duration_s:
            end_s = message["start"] + message["duration"]
            tally.lag_s.append(now_s - talk.began_s - end_s)

    try:
        talk = await converse(
            url,
            paced(pcm, rate_hz=SAMPLE_RATE_HZ),
            rate_hz=SAMPLE_RATE_HZ,
            api_key=api_key,
            tell=tell,
        )
    except ServiceError as error:
        tally.book_error(error)
        await asyncio.sleep(1.0)  # as Retry-After asks: a refused person does not hammer
        return
    if talk.close_code != 1000 or talk.metadata is None:
        tally.failed[f"closed with {talk.close_code}"] += 1
        return
    tally.closing_s.append(talk.ended_s - talk.sent_s)
    tally.answered += 1
    tally.answered_audio_s += talk.audio_s


async def files(
    url: str,
    recordings: Sequence[Recording],
    *,
    rate: float,
    seconds: float,
    model: str,
    seed: int,
    api_key: str = "",
) -> Tally:
    """Files at Poisson moments, ``rate`` a second on average."""
    tally = Tally()
    moments = arrivals(rate=rate, seconds=seconds, seed=seed)
    client = Client(url=url, api_key=api_key)
    loop = asyncio.get_running_loop()
    began_s, cpu_s = time.perf_counter(), time.process_time()

    def ask(recording: Recording, due_s: float) -> None:
        try:
            transcript = client.transcribe(recording.path, model=model)
        except ServiceError as error:
            tally.book_error(error)
            return
        tally.latency_s.append(time.perf_counter() - due_s)
        tally.answered += 1
        tally.answered_audio_s += transcript.duration_s

    with ThreadPoolExecutor(_MOST_WAITING) as threads:
        asked = []
        for number, moment_s in enumerate(moments):
            due_s = began_s + moment_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            recording = recordings[number % len(recordings)]
            asked.append(loop.run_in_executor(threads, ask, recording, due_s))
        await asyncio.gather(*asked)
    tally.wall_s = time.perf_counter() - began_s
    tally.cpu_s = time.process_time() - cpu_s
    return tally


def arrivals(*, rate: float, seconds: float, seed: int) -> list[float]:
    """Moments of a Poisson process, in seconds; at least one."""
    generator = random.Random(seed)
    moments = [0.0]
    while (following := moments[-1] + generator.expovariate(rate)) < seconds:
        moments.append(following)
    return moments


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """A quantile in milliseconds with a 95 % interval; None where there are too few values."""

    point: float
    low: float | None
    high: float | None


def quantile(values: Sequence[float], share: float) -> Quantile | None:
    """Of seconds, from order statistics: nothing is assumed of how they are distributed."""
    if not values:
        return None
    ordered = sorted(values)
    count = len(ordered)
    half = _Z95 * math.sqrt(count * share * (1 - share))
    low, high = math.floor(count * share - half), math.ceil(count * share + half)
    point = ordered[min(count - 1, math.ceil(count * share) - 1)]
    return Quantile(
        point=round(point * 1000, 1),
        low=round(ordered[low - 1] * 1000, 1) if low >= 1 else None,
        high=round(ordered[high] * 1000, 1) if high < count else None,
    )
