"""Admission on the event loop: the door before a body is read, then the turn before the work."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from serving.admission.cost import CostModel
from serving.admission.policy import AdmissionPolicy, Entry, NoRoom, Outcome, Priority, State


class Visit:
    """One request, from the door to its answer."""

    def __init__(self, turnstile: "Turnstile", entry: Entry, content_length: int | None) -> None:
        self._turnstile = turnstile
        self._content_length = content_length
        self._costs = turnstile.costs
        self.entry = entry

    def priced(self, costs: CostModel) -> None:
        """The body names a model whose recordings have a price of their own."""
        self._costs = costs
        cost_s = costs.of_body(self.entry.tenant, self._content_length)
        self._turnstile.correct(self.entry, cost_s)

    async def turn(self) -> None:
        """Wait until it is this request's turn; `NoRoom` when that takes too long."""
        await self._turnstile.turn(self.entry)

    def heard(self, audio_s: float) -> None:
        """The audio is decoded: how long it is, is known."""
        self._turnstile.correct(self.entry, self._costs.of_audio(audio_s))

    def answered(self, outcome: Outcome, *, audio_s: float, work_s: float) -> None:
        """Done: what it took teaches the next decisions."""
        self._costs.observe(
            self.entry.tenant,
            content_length=self._content_length,
            audio_s=audio_s,
            work_s=work_s,
        )
        self._turnstile.finish(self.entry, outcome)


_at_the_door: ContextVar[Visit | None] = ContextVar("auricle_visit", default=None)


class Turnstile:
    """Used on one event loop."""

    def __init__(
        self, policy: AdmissionPolicy, costs: CostModel, *, patience_s: float = 15.0
    ) -> None:
        self.policy = policy
        self.costs = costs
        self._patience_s = patience_s  # others may be let in before who waits; so long at most
        self._turns: dict[Entry, asyncio.Future[None]] = {}

    @contextmanager
    def door(
        self,
        tenant: str,
        *,
        priority: Priority = Priority.INTERACTIVE,
        content_length: int | None = None,
    ) -> Iterator[Visit]:
        """Let a request in or raise `NoRoom`; whatever happens inside, its place is given back."""
        cost_s = self.costs.of_body(tenant, content_length)
        entry = self.policy.arrive(tenant, priority, cost_s)
        visit = Visit(self, entry, content_length)
        token = _at_the_door.set(visit)
        try:
            yield visit
        finally:
            _at_the_door.reset(token)
            self.finish(entry, None)

    @property
    def let_in(self) -> bool:
        """Whether the present request was let in at the door."""
        visit = _at_the_door.get()
        return visit is not None and visit.entry.state is State.ARRIVING

    @contextmanager
    def visit(self, tenant: str, priority: Priority) -> Iterator[Visit]:
        """The visit that began at the door, or one that begins here."""
        if (visit := _at_the_door.get()) is not None and self.let_in:
            yield visit
            return
        with self.door(tenant, priority=priority) as visit:
            yield visit

    async def turn(self, entry: Entry) -> None:
        """Line up and wait."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns[entry] = turn
        try:
            self._wake(self.policy.line_up(entry))
            patience_s = None if entry.priority is Priority.BATCH else self._patience_s
            async with asyncio.timeout(patience_s):  # wait_for may swallow a cancellation
                await turn
        except TimeoutError:
            raise NoRoom(self.policy.backlog_s()) from None
        finally:
            self._turns.pop(entry, None)

    def correct(self, entry: Entry, cost_s: float) -> None:
        """Put what is now known of the cost in place of the estimate."""
        self._wake(self.policy.correct(entry, cost_s))

    def finish(self, entry: Entry, outcome: Outcome | None) -> None:
        """Give a place back; again does nothing."""
        self._wake(self.policy.finish(entry, outcome))

    def _wake(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            turn = self._turns.get(entry)
            if turn is not None and not turn.done():
                turn.set_result(None)
