"""Malformed cases against a running service, and what may not come of them."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks._malformed import Case, case

ANSWER_LIMIT_S = 60.0
_QUIET_S = 0.25  # what is not whole gets no answer: the client gives up after this
_AT_ONCE = 12
_FAILED = re.compile(rb"HTTP/1\.1 (5\d\d)")
_ABNORMAL = re.compile(rb"\x88[\x02-\x7d]\x03\xf3(?!NET-0001)")  # a close frame with code 1011


@dataclass(kw_only=True)
class Storm:
    """What came of the cases."""

    done: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


async def storm(
    port: int,
    seed: int,
    numbers: Iterator[int],
    look: Callable[[Storm], None] = lambda found: None,
) -> Storm:
    """Send the cases of those numbers; ``look`` is called after each."""
    found = Storm()

    async def send() -> None:
        for number in numbers:
            one = case(seed, number)
            try:
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    told = await _told(port, one)
            except TimeoutError:
                told, wrong = b"", "no answer and no end"
            else:
                wrong = _wrong(one, told)
            found.done += 1
            found.answers[f"{one.kind} {_status(told)}"] += 1
            if wrong:
                found.failures.append(f"seed {seed}, case {number} ({one.kind}): {wrong}")
            look(found)

    await asyncio.gather(*(send() for _ in range(_AT_ONCE)))
    return found


async def _told(port: int, one: Case) -> bytes:
    """All that the service says until the connection has ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    told = b""
    try:
        writer.write(one.payload)
        if one.frames:
            told = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " in told[:20]:
                writer.write(one.frames)
        if not one.whole:
            told += await _until_quiet(reader)
            writer.write_eof()
        while block := await reader.read(65_536):
            told += block
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # closed under what is still being sent
    finally:
        writer.close()
    return told


async def _until_quiet(reader: asyncio.StreamReader) -> bytes:
    told = b""
    try:
        while True:
            async with asyncio.timeout(_QUIET_S):
                block = await reader.read(65_536)
            if not block:
                return told
            told += block
    except TimeoutError:
        return told


def _wrong(one: Case, told: bytes) -> str:
    if failed := _FAILED.match(told):
        busy = failed[1] == b"503" and b"retry-after" in told.lower()
        return "" if busy else f"answered {failed[1].decode()}"
    if one.frames and _ABNORMAL.search(told):
        return "closed with 1011"
    return "closed without an answer" if one.whole and not told else ""


def _status(told: bytes) -> str:
    return told[9:12].decode("ascii", "replace") if told.startswith(b"HTTP/1.1 ") else "closed"
