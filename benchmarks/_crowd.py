"""A crowd of callers: live streams, some of them cut without a word, among uploaded files.

Everything is drawn from a seed. Every request must be answered; who vanishes waits for nothing.
"""

import asyncio
import json
import math
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.support_bundle import babble
from tests.support_service import pcm16, wav

RATE_HZ = 16_000
CLIP_S = 0.5
_CALLERS = 10  # at once
_ANSWER_LIMIT_S = 60.0
_CLIPS = 16  # different ones
_QUERY = f"encoding=linear16&sample_rate={RATE_HZ}&interim_results=true"
_BUSY = 429


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Who comes."""

    streams: int
    files: int
    abrupt_share: float = 0.2  # of the streams
    resumable_share: float = 0.2  # of the streams, abrupt ones too
    limit_s: float = math.inf  # then everybody goes home
    seed: int = 7


@dataclass(kw_only=True)
class Tally:
    """How it went."""

    streams: int = 0  # ended, whichever way
    outcomes: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)


async def come(port: int, crowd: Crowd, look: Callable[[Tally], None]) -> Tally:
    """Send the crowd; ``look`` is called after every stream."""
    tally = Tally()
    visits = ["file"] * crowd.files + ["stream"] * crowd.streams
    random.Random(crowd.seed).shuffle(visits)
    waiting, ends_s = iter(visits), time.monotonic() + crowd.limit_s
    await asyncio.gather(
        *(_caller(port, waiting, crowd, ends_s, n, tally, look) for n in range(_CALLERS))
    )
    return tally


async def _caller(
    port: int,
    waiting: Iterator[str],
    crowd: Crowd,
    ends_s: float,
    number: int,
    tally: Tally,
    look: Callable[[Tally], None],
) -> None:
    rng, line = random.Random(f"{crowd.seed}-{number}"), Line(port)
    for visit in waiting:
        if time.monotonic() > ends_s:
            break
        clip_T = babble(CLIP_S, seed=rng.randrange(_CLIPS))
        try:
            if visit == "file":
                outcome = await _file(line, wav(clip_T))
            else:
                outcome = await _stream(port, pcm16(clip_T).tobytes(), crowd, rng)
        except (TimeoutError, OSError, EOFError, WebSocketException) as error:
            outcome = f"{visit} unanswered"
            tally.unanswered.append(f"{visit}: {type(error).__name__}")
            line.close()
        tally.outcomes[outcome] += 1
        if visit == "stream":
            tally.streams += 1
            look(tally)
    line.close()


class Line:
    """One kept connection over which requests go, one after another."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, head: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request without its length and end; give status and body of the answer."""
        async with asyncio.timeout(_ANSWER_LIMIT_S):
            if self._ends is None:
                self._ends = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._ends
            writer.write(f"{head}\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
            told = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = told.partition("content-length:")[2].partition("\r\n")[0]
            content = await reader.readexactly(int(length))
        if "connection: close" in told:
            self.close()
        return int(told.split()[1]), content

    def close(self) -> None:
        """Hang up."""
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None


def upload(content: bytes, name: str = "clip.wav") -> tuple[str, bytes]:
    """Head and body of a file's request."""
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=edge"
    )
    model = b'--edge\r\nContent-Disposition: form-data; name="model"\r\n\r\nauricle\r\n'
    part = f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head, model + part.encode() + content + b"\r\n--edge--\r\n"


async def _file(line: Line, content: bytes) -> str:
    status, answer = await line.ask(*upload(content))
    if status == 200:
        return "file answered" if "text" in json.loads(answer) else "file of another shape"
    return "file told to wait" if status == _BUSY else f"file {status}"


async def _stream(port: int, pcm: bytes, crowd: Crowd, rng: random.Random) -> str:
    resumable = "&resumable=true" if rng.random() < crowd.resumable_share else ""
    query = _QUERY + resumable
    if rng.random() < crowd.abrupt_share:
        await asyncio.to_thread(rng.choice(RUDE), port, pcm, rng.random(), query)
        return "stream cut"
    try:
        async with (
            asyncio.timeout(_ANSWER_LIMIT_S),
            connect(
                f"ws://127.0.0.1:{port}/v1/listen?{query}", proxy=None, compression=None
            ) as link,
        ):
            size = rng.choice((1_000, 3_200, len(pcm)))
            for at in range(0, len(pcm), size):
                await link.send(pcm[at : at + size])
            await link.send(json.dumps({"type": "CloseStream"}))
            told = [json.loads(text)["type"] async for text in link]
    except InvalidStatus as refusal:
        status = refusal.response.status_code
        return "stream told to wait" if status == _BUSY else f"stream {status}"
    return "stream answered" if told[-1:] == ["Metadata"] else "stream without its end"


def _connect(port: int, query: str) -> socket.socket:
    """A live stream by hand, so that the connection can be ended as no library would."""
    link = socket.create_connection(("127.0.0.1", port), timeout=10)
    link.sendall(
        f"GET /v1/listen?{query} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = link.recv(4096)
    if b" 101 " not in head and b" 429 " not in head:
        link.close()
        raise ConnectionError(f"no upgrade: {head[:40]!r}")
    return link


def _frame(payload: bytes) -> bytes:
    """A binary frame under a mask of zeros."""
    return struct.pack("!BBQI", 0x82, 0x80 | 127, len(payload), 0) + payload


def _reset(port: int, pcm: bytes, share: float, query: str) -> None:
    """Some audio, then a TCP reset."""
    link = _connect(port, query)
    link.sendall(_frame(pcm[: int(share * len(pcm)) // 2 * 2]))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()


def _vanish(port: int, pcm: bytes, share: float, query: str) -> None:
    """Some audio, then an end without a WebSocket close."""
    with _connect(port, query) as link:
        link.sendall(_frame(pcm[: int(share * len(pcm)) // 2 * 2]))


def _tear(port: int, pcm: bytes, share: float, query: str) -> None:
    """A frame that is never finished."""
    with _connect(port, query) as link:
        link.sendall(_frame(pcm)[: 16 + int(share * len(pcm))])


RUDE: tuple[Callable[[int, bytes, float, str], None], ...] = (_reset, _vanish, _tear)
