"""Open streams fall with the credential that opened them: within a second, in every process.

A revoked key is refused at its next use anyway; a stream uses its key once and may go on for hours.
While any stream is open, one look a second asks the store whether it has changed (microseconds) and
reads the keys of open streams anew only when it has.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving import logs
from serving.tenants.authenticator import Authenticator, Identity, Standing

_LOOK_S = 1.0
Cut = Callable[[Standing], None]
"""Ends a stream; told why."""


@dataclass(kw_only=True, eq=False)
class _Held:
    identity: Identity
    standing: Standing
    cut: Cut


class KeyWatch:
    """Watches the credentials of this process's open streams. Used on one event loop."""

    def __init__(self, authenticator: Authenticator, *, look_s: float = _LOOK_S) -> None:
        self._authenticator = authenticator
        self._look_s = look_s
        self._held: set[_Held] = set()
        self._version = 0
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def holding(self, identity: Identity, cut: Cut) -> Iterator[None]:
        """While inside, ``cut`` is called once if the credential no longer stands."""
        if self._task is None:
            self._version = self._authenticator.store_version()  # before the key is read
            self._task = asyncio.get_running_loop().create_task(self._watch())
        standing = self._authenticator.standing(identity)
        held = _Held(identity=identity, standing=standing, cut=cut)
        self._held.add(held)
        try:
            yield
        finally:
            self._held.discard(held)
            if not self._held:
                self._task.cancel()
                self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            try:
                self._look()
            except Exception as error:  # of the store; it is asked again
                logs.crash("key_watch_failed", error)

    def _look(self) -> None:
        version = self._authenticator.store_version()
        if version != self._version:
            for held in self._held:
                held.standing = self._authenticator.standing(held.identity)
            self._version = version
        fallen = [held for held in self._held if self._authenticator.is_over(held.standing)]
        for held in fallen:
            self._held.discard(held)
            held.cut(held.standing)
