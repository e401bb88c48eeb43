"""Load on a service: as many callers as told, or arrivals that come whatever the service does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np

_Run = Callable[[httpx.AsyncClient, "Load"], Awaitable[None]]
PATH = "/v1/audio/transcriptions"
_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer; ``latency_s`` counts from when the request was due, not from when it left."""

    status: int
    latency_s: float
    inside_s: float = 0.0  # features, model and decoding, as the service says


@dataclass(kw_only=True)
class Load:
    """What came back of one run."""

    clip_s: float
    wall_s: float = 0.0
    own_cpu_s: float = 0.0  # of the generator's process
    replies: list[Reply] = field(default_factory=list)

    def latencies(self, status: int) -> list[float]:
        """Seconds of every reply with this status."""
        return [reply.latency_s for reply in self.replies if reply.status == status]

    @property
    def audio_per_s(self) -> float:
        """Seconds of audio answered in a second."""
        return len(self.latencies(200)) * self.clip_s / self.wall_s


class Generator:
    """Sends one clip again and again."""

    def __init__(self, url: str, clip: bytes, clip_s: float, model: str) -> None:
        self._url = url + PATH
        self._clip = clip
        self._clip_s = clip_s
        self._form = {"model": model, "response_format": "verbose_json"}

    def closed(self, callers: int, seconds: float) -> Load:
        """So many callers, each with one request at a time."""

        async def run(client: httpx.AsyncClient, load: Load) -> None:
            ends = time.perf_counter() + seconds

            async def caller() -> None:
                while (due := time.perf_counter()) < ends:
                    load.replies.append(await self._ask(client, due))

            await asyncio.gather(*(caller() for _ in range(callers)))

        return self._measured(run)

    def open(self, per_s: float, seconds: float, seed: int) -> Load:
        """Arrivals at random (Poisson), whatever the service does."""
        rng = np.random.default_rng(seed)
        gaps = rng.exponential(1.0 / per_s, max(1, round(per_s * seconds)))

        async def run(client: httpx.AsyncClient, load: Load) -> None:
            began = time.perf_counter()

            async def arrival(due: float) -> None:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                load.replies.append(await self._ask(client, due))

            await asyncio.gather(*(arrival(began + at) for at in np.cumsum(gaps)))

        return self._measured(run)

    def _measured(self, run: _Run) -> Load:
        async def whole() -> Load:
            load = Load(clip_s=self._clip_s)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
            async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits) as client:
                began, cpu = time.perf_counter(), time.process_time()
                await run(client, load)
                load.wall_s = time.perf_counter() - began
                load.own_cpu_s = time.process_time() - cpu
            return load

        return asyncio.run(whole())

    async def _ask(self, client: httpx.AsyncClient, due: float) -> Reply:
        files = {"file": ("clip.wav", self._clip, "audio/wav")}
        try:
            answer = await client.post(self._url, data=self._form, files=files)
        except httpx.HTTPError:
            return Reply(status=0, latency_s=time.perf_counter() - due)
        latency_s = time.perf_counter() - due
        if answer.status_code != 200:
            return Reply(status=answer.status_code, latency_s=latency_s)
        timings = answer.json()["auricle"]["timings_ms"]
        inside_ms = sum(timings[stage] for stage in ("features", "model", "decoding"))
        return Reply(status=200, latency_s=latency_s, inside_s=inside_ms / 1000)


def percentile(values: Sequence[float], share: float) -> float:
    """0 when there is nothing to speak of."""
    return float(np.percentile(values, share)) if values else 0.0
