"""A clean way out of a worker process: streams first, and never an orphan."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from serving import logs
from serving.runtime import Runtime

_POLL_S = 0.5


def drain_on_signals(runtime: Runtime) -> None:
    """Let SIGTERM and SIGINT finish live streams and requests before the server hears of them.

    The server closes live WebSockets the moment it is told to stop, before any final result. So
    its own handler is kept and called only after the drain; a second signal is passed on at once.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handler(runtime, loop, signal.getsignal(number)))


def _handler(
    runtime: Runtime, loop: asyncio.AbstractEventLoop, server: Any
) -> Callable[[int, FrameType | None], None]:
    async def stop(number: int, frame: FrameType | None) -> None:
        try:
            await runtime.drain()
        finally:
            if callable(server):
                server(number, frame)

    tasks: list[asyncio.Task[None]] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if not runtime.ready:
            if not tasks and callable(server):
                server(number, frame)
            return
        runtime.draining.set()
        logs.event("draining")
        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(stop(number, frame))))

    return handle


def exit_with_parent(parent: int) -> None:
    """End this worker when its supervisor is gone: it must not go on answering on the port.

    ``parent`` is the supervisor's pid, taken before the model was loaded: one that is killed
    meanwhile must be missed too.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        logs.event("parent_gone")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
