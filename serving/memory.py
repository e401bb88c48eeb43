"""What keeps a long-lived process as small as it was when it began.

Nothing of a request stays behind it, and yet resident memory would grow with every one: glibc gives
each thread an arena of its own and keeps what was freed in all of them, and the collector leaves
cycles alone until their number is a quarter of everything that was loaded at the start.
"""

import asyncio
import ctypes
import gc
from typing import Any

_ARENA_MAX = -8  # mallopt's M_ARENA_MAX
_ARENAS = 2  # the workers' threads hold the interpreter's lock while they allocate
_EVERY_S = 20.0  # what is free goes back so often; a few milliseconds of a thread, not of the loop


def share_arenas() -> None:
    """Few arenas for all threads. Before the threads start; other C libraries have no such thing."""
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_ARENA_MAX, _ARENAS)


def settle() -> None:
    """Once all that stays is loaded: the collector looks at what came later only.

    A full collection is then cheap, and so it is made early: it does not stop the loop for long.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # of nothing: what it counts against is small from now on


async def give_back() -> None:
    """Give the system what is free, again and again, until cancelled."""
    trim = _function("malloc_trim")
    while trim is not None:
        await asyncio.sleep(_EVERY_S)
        await asyncio.to_thread(trim, 0)


def _function(name: str) -> Any:
    """A function of the C library; None where it has no such one."""
    return getattr(ctypes.CDLL(None), name, None)
