"""Live streams at the pace of speech: how late every result is, and how late the last one.

A result says up to where it has heard. The model needs some audio beyond that; the lag is counted
from when the last byte of it was sent until the result was there.
"""

import asyncio
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

_RATE_HZ = 16_000
_PACKET_S = 0.1
_SPREAD_S = 0.64  # over which streams begin: two steps of the model
_BYTES_PER_S = 2 * _RATE_HZ
_PATIENCE_S = 20.0  # after the last byte


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a server's messages are to be read."""

    url: str
    stop: str  # the text message that ends a stream
    heard_s: Callable[[dict[str, object]], float | None]  # up to where a result has heard
    is_last: Callable[[dict[str, object]], bool]
    text: Callable[[dict[str, object]], str]  # what is final in this message


@dataclass(kw_only=True)
class Paced:
    """What came of a number of streams."""

    streams: int
    lags_s: list[float] = field(default_factory=list)
    finals_s: list[float] = field(default_factory=list)  # from the end of the stream to its last
    texts: dict[int, str] = field(default_factory=dict)
    failed: int = 0
    own_cpu_share: float = 0.0  # of one core, of the sender


def paced(dialect: Dialect, audios: Sequence[NDArray[np.int16]], *, beyond_s: float) -> Paced:
    """Send every audio as one stream, all side by side; ``beyond_s`` of audio is needed ahead."""
    found = Paced(streams=len(audios))

    async def whole() -> None:
        gaps = np.random.default_rng(0).uniform(0.0, _SPREAD_S, len(audios))
        streams = [
            _stream(dialect, audio_T, found, at, float(gaps[at]), beyond_s)
            for at, audio_T in enumerate(audios)
        ]
        for outcome in await asyncio.gather(*streams, return_exceptions=True):
            if isinstance(outcome, (OSError, TimeoutError, WebSocketException)):
                found.failed += 1
            elif isinstance(outcome, BaseException):
                raise outcome

    began, cpu = time.perf_counter(), time.process_time()
    asyncio.run(whole())
    found.own_cpu_share = (time.process_time() - cpu) / (time.perf_counter() - began)
    return found


async def _stream(
    dialect: Dialect,
    audio_T: NDArray[np.int16],
    found: Paced,
    at: int,
    wait_s: float,
    beyond: float,
) -> None:
    await asyncio.sleep(wait_s)
    content = audio_T.astype("<i2").tobytes()
    size = round(_PACKET_S * _BYTES_PER_S)
    packets = [content[begin : begin + size] for begin in range(0, len(content), size)]
    sent_s: list[float] = []
    async with connect(dialect.url, open_timeout=_PATIENCE_S, compression=None) as socket:
        reader = asyncio.ensure_future(_read(socket, dialect, found, at, sent_s, beyond))
        try:
            began = time.perf_counter()
            for number, packet in enumerate(packets):
                await asyncio.sleep(max(0.0, began + number * _PACKET_S - time.perf_counter()))
                await socket.send(packet)
                sent_s.append(time.perf_counter())
            await socket.send(dialect.stop)
            ended = time.perf_counter()
            async with asyncio.timeout(_PATIENCE_S):
                found.finals_s.append(await reader - ended)
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, WebSocketException):
                await reader


async def _read(
    socket: ClientConnection,
    dialect: Dialect,
    found: Paced,
    at: int,
    sent_s: list[float],
    beyond_s: float,
) -> float:
    """Take results until the last; gives when it came."""
    told_s = 0.0
    async for content in socket:
        now = time.perf_counter()
        message = json.loads(content)
        found.texts[at] = f"{found.texts.get(at, '')} {dialect.text(message)}".strip()
        if dialect.is_last(message):
            return now
        heard_s = dialect.heard_s(message)
        if heard_s is None or heard_s <= told_s:
            continue
        told_s = heard_s
        packet = packet_of(heard_s + beyond_s)
        if packet < len(sent_s):  # else it is the end's own result
            found.lags_s.append(now - sent_s[packet])
    raise TimeoutError("the stream ended without its last result")


def packet_of(audio_s: float) -> int:
    """The packet that carries the last byte of so much audio."""
    return max(0, math.ceil(round(audio_s / _PACKET_S, 6)) - 1)


def listen_dialect(port: int, model: str) -> Dialect:
    """Ours: Deepgram's messages."""
    query = f"model={model}&encoding=linear16&sample_rate={_RATE_HZ}&interim_results=true"

    def heard(message: dict[str, object]) -> float | None:
        if message.get("type") != "Results":
            return None
        return float(str(message["start"])) + float(str(message["duration"]))

    def text(message: dict[str, object]) -> str:
        if message.get("type") != "Results" or not message["is_final"]:
            return ""
        channel = message["channel"]
        assert isinstance(channel, dict)
        return str(channel["alternatives"][0]["transcript"])

    return Dialect(
        url=f"ws://127.0.0.1:{port}/v1/listen?{query}",
        stop='{"type": "CloseStream"}',
        heard_s=heard,
        is_last=lambda message: message.get("type") == "Metadata",
        text=text,
    )


def peer_dialect(port: int) -> Dialect:
    """The peer's: ``{"heard_s", "text", "last"}``."""
    return Dialect(
        url=f"ws://127.0.0.1:{port}",
        stop="Done",
        heard_s=lambda message: None if message["last"] else float(str(message["heard_s"])),
        is_last=lambda message: bool(message["last"]),
        text=lambda message: str(message["text"]) if message["last"] else "",
    )
