"""A TCP proxy that hurts: it delays, trickles, cuts and resets connections where it is told to."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Faults:
    """What happens to the connections, one after another; the last plan is for all that follow."""

    cut_after_bytes: list[int] = field(default_factory=list)  # from the client, per connection
    reset: bool = True  # cut by RST, otherwise by an orderly end
    piece_bytes: int = 1 << 16  # a trickle passes on so few at a time
    delay_s: float = 0.0  # before each piece
    swallow_answers_after_bytes: int | None = None  # from the service, on connections to be cut
    connections: int = 0
    passed_bytes: list[int] = field(default_factory=list)  # from the client, per connection
    port: int = 0  # of the service; may change between connections


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults,
    most_bytes: int | None, *, swallow: bool = False,
) -> None:  # fmt: skip
    """Copy until the end, or until so many bytes; or go on reading and drop the rest."""
    passed = 0
    at = len(faults.passed_bytes)
    if not swallow:
        faults.passed_bytes.append(0)
    while content := await reader.read(faults.piece_bytes):
        await asyncio.sleep(faults.delay_s)
        if most_bytes is not None:
            content = content[: max(0, most_bytes - passed)] if swallow else content
        writer.write(content)
        await writer.drain()
        passed += len(content)
        if not swallow:
            faults.passed_bytes[at] = passed
        if most_bytes is not None and not swallow and passed >= most_bytes:
            raise ConnectionAbortedError


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults
) -> None:
    at, faults.connections = faults.connections, faults.connections + 1
    cut = faults.cut_after_bytes[at] if at < len(faults.cut_after_bytes) else None
    swallow = faults.swallow_answers_after_bytes if cut is not None else None
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", faults.port)
    except OSError:
        writer.close()
        return
    halves = [
        asyncio.ensure_future(_pass_on(reader, inner_writer, faults, cut)),
        asyncio.ensure_future(_pass_on(inner_reader, writer, faults, swallow, swallow=True)),
    ]
    await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
    for half in halves:
        half.cancel()
    await asyncio.gather(*halves, return_exceptions=True)
    for side in (writer, inner_writer):
        link = side.get_extra_info("socket")
        if faults.reset and cut is not None and link is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        side.close()


@contextmanager
def proxy(faults: Faults) -> Iterator[str]:
    """The address of a proxy before the service on ``faults.port``."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    handler: Callable[..., object] = lambda r, w: _serve(r, w, faults)  # noqa: E731
    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(handler, "127.0.0.1", 0), loop
    ).result(10)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
