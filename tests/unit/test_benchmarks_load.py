"""The senders of the proofs: what they count is what happened."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve

from benchmarks._load import Clip, Generator
from benchmarks._paced import paced, packet_of, peer_dialect

_WAV = b"R" * 300_000
_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextmanager
def _running(start: Callable[[], Coroutine[Any, Any, Any]]) -> Iterator[int]:
    """A server on a loop in a thread of its own; gives its port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield next(iter(server.sockets)).getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def _http(handle: _Serve) -> AbstractContextManager[int]:
    return _running(lambda: asyncio.start_server(handle, "127.0.0.1", 0))


def test_a_refusal_is_counted_before_the_body_is_taken_and_the_line_is_kept() -> None:
    lines, requests = [], []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(writer)
        while head := await _head(reader):
            requests.append(head)
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}")
            await reader.readexactly(_length(head))
        writer.close()

    with _http(handle) as port:
        clip = Clip(audio_s=2.0, content=_WAV)
        load = Generator(port, [clip], "auricle").open(50.0, 0.2, seed=1)
    assert [reply.status for reply in load.replies] == [429] * 10
    assert load.audio_per_s == 0.0
    assert len(requests) == 10
    assert 1 <= len(lines) <= 10
    assert b"multipart/form-data" in requests[0]


def test_answers_carry_their_audio_and_what_the_service_says_of_itself() -> None:
    timings = {"features": 1.0, "model": 2.0, "decoding": 3.0, "queue": 50.0}
    body = json.dumps({"auricle": {"timings_ms": timings}}).encode()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            sent = await reader.readexactly(_length(head))
            assert _WAV in sent
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            await asyncio.sleep(0)
            writer.write(body)
        writer.close()

    with _http(handle) as port:
        clips = [Clip(audio_s=seconds, content=_WAV) for seconds in (2.0, 6.0)]
        load = Generator(port, clips, "auricle").closed(2, 0.05)
    answered = load.of(200)
    assert answered and len(answered) == len(load.replies)
    assert {reply.audio_s for reply in answered} == {2.0, 6.0}
    assert answered[0].inside_s == 0.006
    assert load.audio_per_s * load.wall_s >= 8.0


def test_a_service_that_is_gone_is_no_answer() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.transport.abort()

    with _http(handle) as port:
        load = Generator(port, [Clip(audio_s=1.0, content=_WAV)], "auricle").open(100.0, 0.03, 1)
    assert {reply.status for reply in load.replies} == {0}


def test_a_lag_is_counted_from_the_packet_that_carries_the_last_byte() -> None:
    assert [packet_of(seconds) for seconds in (0.05, 0.1, 0.1001, 0.7, 0.705)] == [0, 0, 1, 6, 7]


def test_paced_streams_are_told_apart_and_their_last_results_kept() -> None:
    async def converse(socket: ServerConnection) -> None:
        heard = 0
        async for content in socket:
            if isinstance(content, str):
                break
            heard += len(content)
            message = {"heard_s": heard / 32_000 - 0.1, "text": "", "last": False}
            await socket.send(json.dumps(message))
        await socket.send(json.dumps({"heard_s": 0.0, "text": str(heard), "last": True}))

    async def start() -> Any:
        return await serve(converse, "127.0.0.1", 0)

    with _running(start) as port:
        audios = [np.ones(size, np.int16) for size in (4_800, 3_200)]
        found = paced(peer_dialect(port), audios, beyond_s=0.1)
    assert found.texts == {0: "9600", 1: "6400"}
    assert found.failed == 0
    assert len(found.finals_s) == 2
    assert len(found.lags_s) == 2 + 1  # the first result has heard nothing yet
    assert all(lag >= 0.0 for lag in found.lags_s)


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _length(head: bytes) -> int:
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n") if b": " in line)
    return int(fields[b"Content-Length"])
