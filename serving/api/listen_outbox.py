"""Messages on their way to one client: in order, bounded in bytes and in time.

A client that reads too slowly loses partial results first (a newer one says all that an older one
did), then the stream, and is told so. It never makes the service hold more than the bound.
"""

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect


@dataclass(kw_only=True)
class _Letter:
    text: str
    replaceable_by: int | None  # channel of a partial result; None: it must arrive


class Outbox:
    """Sends from a task of its own, so that a slow reader never holds up the audio."""

    def __init__(self, socket: WebSocket, *, max_bytes: int, max_wait_s: float) -> None:
        self._socket, self._max_bytes, self._max_wait_s = socket, max_bytes, max_wait_s
        self._waiting: deque[_Letter] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.stuck = asyncio.Event()  # the client reads too slowly, or is gone
        self.gone = False
        self._task = asyncio.get_running_loop().create_task(self._send())

    def put(self, message: dict[str, Any], *, partial_of: int | None = None) -> None:
        """Queue a message; a partial result takes the place of the channel's unsent one."""
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
        last = self._waiting[-1] if self._waiting else None
        if last is not None and partial_of is not None and last.replaceable_by == partial_of:
            self._bytes -= len(last.text)
            last.text = text
        else:
            self._waiting.append(_Letter(text=text, replaceable_by=partial_of))
        self._bytes += len(text)
        self._empty.clear()
        self._wake.set()
        if self._bytes > self._max_bytes:
            self.stuck.set()

    async def delivered(self) -> None:
        """Return when everything was handed to the connection, or cannot be."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._empty, self.stuck)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def close(self) -> None:
        """Stop sending; what was not sent stays unsent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                letter = self._waiting.popleft()
                self._bytes -= len(letter.text)
                try:
                    async with asyncio.timeout(self._max_wait_s):
                        await self._socket.send_text(letter.text)
                except TimeoutError:
                    self.stuck.set()
                    return
                except (WebSocketDisconnect, RuntimeError):  # closed from the other side meanwhile
                    self.gone = True
                    self.stuck.set()
                    return
            self._empty.set()
