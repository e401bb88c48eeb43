"""Who waits for a change of a job in this process; other processes' changes are found by looking."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

NEW_WORK = "work"  # workers wait here
NEW_WEBHOOK = "webhook"  # the dispatcher waits here


def followers(job_id: str) -> str:
    """Where those who watch a job wait."""
    return f"job/{job_id}"


def holder(job_id: str) -> str:
    """Where the worker that holds a job waits: it may have to stop."""
    return f"held/{job_id}"


class Changes:
    """Wakes waiters by name. Used on one event loop."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def tell(self, name: str) -> None:
        """Wake everybody who waits under this name."""
        for event in self._waiting.get(name, ()):
            event.set()

    @contextmanager
    def following(self, name: str) -> "Iterator[asyncio.Event]":
        """An event that is set by every change until the caller clears it."""
        event = asyncio.Event()
        self._waiting[name].add(event)
        try:
            yield event
        finally:
            self._waiting[name].discard(event)
            if not self._waiting[name]:
                del self._waiting[name]


async def happened(event: asyncio.Event, *, within_s: float) -> bool:
    """Wait for the event and take it; False when the time is over."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
