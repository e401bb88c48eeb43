"""Load on a service: as many callers as told, or arrivals that come whatever the service does.

The sender shares the machine with what it measures, so it does as little as it can: requests are
made beforehand, connections are kept, answers are read by their length and looked at afterwards.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

_Run = Callable[["_Lines", "Load"], Awaitable[None]]
PATH = "/v1/audio/transcriptions"
_TIMEOUT_S = 120.0
_HEAD_END = b"\r\n\r\n"
_BOUNDARY = "auricle-load"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording to send."""

    audio_s: float
    content: bytes  # a WAV file


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer; ``latency_s`` counts from when the request was due, not from when it left."""

    status: int  # 0: none came
    latency_s: float
    audio_s: float
    body: bytes = b""

    @property
    def inside_s(self) -> float:
        """Features, model and decoding, as the service says."""
        timings = json.loads(self.body)["auricle"]["timings_ms"]
        return float(sum(timings[stage] for stage in ("features", "model", "decoding"))) / 1000


@dataclass(kw_only=True)
class Load:
    """What came back of one run."""

    wall_s: float = 0.0
    own_cpu_s: float = 0.0  # of the generator's process
    replies: list[Reply] = field(default_factory=list)

    def of(self, status: int) -> list[Reply]:
        """Every reply with this status."""
        return [reply for reply in self.replies if reply.status == status]

    def latencies(self, status: int) -> list[float]:
        """Their seconds."""
        return [reply.latency_s for reply in self.of(status)]

    @property
    def audio_per_s(self) -> float:
        """Seconds of audio answered in a second."""
        return sum(reply.audio_s for reply in self.of(200)) / self.wall_s

    @property
    def requests_per_s(self) -> float:
        """Requests answered in a second."""
        return len(self.of(200)) / self.wall_s


class Generator:
    """Sends clips, each in its turn or at random."""

    def __init__(self, port: int, clips: Sequence[Clip], model: str) -> None:
        self._port = port
        self._requests = [(clip.audio_s, _request(clip, model)) for clip in clips]

    def closed(self, callers: int, seconds: float) -> Load:
        """So many callers, each with one request at a time."""

        async def run(lines: _Lines, load: Load) -> None:
            ends = time.perf_counter() + seconds

            async def caller(turn: int) -> None:
                while (due := time.perf_counter()) < ends:
                    load.replies.append(await self._ask(lines, due, turn))
                    turn += callers

            await asyncio.gather(*(caller(turn) for turn in range(callers)))

        return self._measured(run)

    def open(self, per_s: float, seconds: float, seed: int) -> Load:
        """Arrivals at random (Poisson), whatever the service does."""
        rng = np.random.default_rng(seed)
        count = max(1, round(per_s * seconds))
        due_s = np.cumsum(rng.exponential(1.0 / per_s, count)).tolist()
        turns = rng.integers(len(self._requests), size=count).tolist()

        async def run(lines: _Lines, load: Load) -> None:
            began, asked = time.perf_counter(), []

            async def arrival(due: float, turn: int) -> None:
                load.replies.append(await self._ask(lines, due, turn))

            for at, turn in zip(due_s, turns, strict=True):
                await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
                asked.append(asyncio.ensure_future(arrival(began + at, turn)))
            await asyncio.gather(*asked)

        return self._measured(run)

    def _measured(self, run: _Run) -> Load:
        async def whole() -> Load:
            load, lines = Load(), _Lines(self._port)
            began, cpu = time.perf_counter(), time.process_time()
            await run(lines, load)
            load.wall_s = time.perf_counter() - began
            load.own_cpu_s = time.process_time() - cpu
            lines.close()
            return load

        return asyncio.run(whole())

    async def _ask(self, lines: "_Lines", due: float, turn: int) -> Reply:
        audio_s, request = self._requests[turn % len(self._requests)]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status, body = await lines.ask(request)
        except (OSError, TimeoutError):
            status, body = 0, b""
        latency_s = time.perf_counter() - due
        return Reply(
            status=status, latency_s=latency_s, audio_s=audio_s, body=body if status == 200 else b""
        )


class _Lines:
    """Connections that are kept; as many as requests are under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Line] = []

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of an answer."""
        loop = asyncio.get_running_loop()
        line = self._idle.pop() if self._idle else None
        if line is None or line.closed:
            _, line = await loop.create_connection(_Line, "127.0.0.1", self._port)
        answer = await line.ask(request)
        if not line.closed:
            self._idle.append(line)
        return answer

    def close(self) -> None:
        """Hang up."""
        for line in self._idle:
            line.hang_up()


class _Line(asyncio.Protocol):
    """One connection, one request at a time; reads what has a Content-Length."""

    def __init__(self) -> None:
        self.closed = False
        self._heard = b""
        self._needed = 0  # bytes of head and body
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send; the answer may come before everything is sent."""
        assert self._transport is not None
        self._heard, self._needed = b"", 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def hang_up(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if not self._needed:
            head, found, _ = self._heard.partition(_HEAD_END)
            if not found:
                return
            lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
            fields = {name.strip(): value.strip() for name, _, value in lines}
            self._needed = len(head) + len(_HEAD_END) + int(fields.get(b"content-length", b"0"))
            self.closed = fields.get(b"connection") == b"close"
        if len(self._heard) >= self._needed and self._answer is not None:
            status = int(self._heard[9:12])
            body = self._heard[self._heard.index(_HEAD_END) + len(_HEAD_END) :]
            if not self._answer.done():
                self._answer.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())


def _request(clip: Clip, model: str) -> bytes:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("model", model), ("response_format", "verbose_json"))
    ]
    file = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    body = b"".join(
        ["".join(parts).encode(), file.encode(), clip.content, f"\r\n--{_BOUNDARY}--\r\n".encode()]
    )
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def percentile(values: Sequence[float], share: float) -> float:
    """0 when there is nothing to speak of."""
    return float(np.percentile(values, share)) if values else 0.0
