"""The decision: run now, wait, or be told when to come again. No thread, no event loop.

Work is measured in seconds of work (`cost.py`). A long recording runs a few pieces at a time, so it
takes only ``footprint_s`` of the limit at once, but its tenant is charged all of it.
"""

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from governance.errors import AuricleError
from serving.admission.drain import DrainRate
from serving.admission.fair_queue import FairQueue
from serving.admission.limit import AdaptiveLimit, LimitRules


class Priority(enum.IntEnum):
    """The lower goes first. Live streams are admitted apart (`live.py`) and never wait."""

    LIVE = 0
    INTERACTIVE = 1
    BATCH = 2


class State(enum.Enum):
    """Where a request is on its way."""

    ARRIVING = "arriving"  # let in at the door, its body is being read
    WAITING = "waiting"
    RUNNING = "running"
    GONE = "gone"


class NoRoom(AuricleError):
    """Refused; ``retry_after_s`` is when there should be room."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("The service is at its limit of waiting work.")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the operator allows."""

    max_wait_s: float = 5.0  # expected wait beyond which nobody is let in
    max_open: int = 64  # arriving, waiting and running, without batch work; twice that at most
    footprint_s: float = 2.4  # most of the limit that one request takes
    batch_share: float = 0.7  # of the limit that batch work may fill; the rest awaits others
    aging_s: float = 30.0  # batch work that waited so long goes first
    upload_s: float = 2.0  # a body that takes longer holds no room until it is there
    limit: LimitRules = field(default_factory=LimitRules)


@dataclass(kw_only=True, eq=False)
class Entry:
    """One request's way through."""

    tenant: str
    priority: Priority
    cost_s: float
    since_s: float
    state: State = State.ARRIVING


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a request turned out to be."""

    waited_s: float  # inside, after it was started: for a thread or for the model
    worked_s: float  # wall time of its own steps


class AdmissionPolicy:
    """All requests of one process. One owner."""

    def __init__(
        self, rules: Rules, *, clock: Callable[[], float], drain: DrainRate | None = None
    ) -> None:
        self.rules = rules
        self.limit = AdaptiveLimit(rules.limit)
        self.drain = drain or DrainRate()
        self.only_at_once = False  # let nobody in who would have to wait
        self._clock = clock
        self._queues: dict[Priority, FairQueue[Entry]] = {
            priority: FairQueue() for priority in (Priority.INTERACTIVE, Priority.BATCH)
        }
        self._arriving: dict[Entry, None] = {}
        self._running: dict[Entry, None] = {}

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return sum(len(queue) for queue in self._queues.values())

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._running)

    @property
    def open(self) -> int:
        """Requests that are not over."""
        return len(self._arriving) + self.waiting + self.running

    @property
    def running_s(self) -> float:
        """Work under way."""
        return sum(self._footprint_s(entry) for entry in self._running)

    def arrive(self, tenant: str, priority: Priority, cost_s: float) -> Entry:
        """Let a request in, or raise `NoRoom`; batch work is patient and always let in."""
        entry = Entry(tenant=tenant, priority=priority, cost_s=cost_s, since_s=self._clock())
        if priority is not Priority.BATCH:
            wait_s = self.expected_wait_s(entry)
            bound_s = 0.0 if self.only_at_once else self.rules.max_wait_s
            if wait_s > bound_s:
                raise NoRoom(wait_s - bound_s)
            if self._full(entry):
                raise NoRoom(self._footprint_s(entry) / self.drain.per_s)
        self._arriving[entry] = None
        return entry

    def line_up(self, entry: Entry) -> list[Entry]:
        """The body is there. Gives the entries that may start, perhaps this one."""
        del self._arriving[entry]
        entry.state, entry.since_s = State.WAITING, self._clock()
        self._queues[entry.priority].push(entry, tenant=entry.tenant, cost=entry.cost_s)
        return self._start()

    def correct(self, entry: Entry, cost_s: float) -> list[Entry]:
        """More is known about a running request's cost."""
        entry.cost_s = cost_s
        return self._start()

    def finish(self, entry: Entry, outcome: Outcome | None = None) -> list[Entry]:
        """A request is over, answered (``outcome``) or not, or its caller has gone away."""
        if entry.state is State.RUNNING:
            self._learn(entry, outcome)
            del self._running[entry]
        elif entry.state is State.WAITING:
            self._queues[entry.priority].remove(entry)
        elif entry.state is State.ARRIVING:
            del self._arriving[entry]
        else:
            return []
        entry.state = State.GONE
        return self._start()

    def expected_wait_s(self, entry: Entry) -> float:
        """How long a newcomer would wait: 0 when it could start at once.

        Fair turns mean that of every other tenant at most as much goes before it as of its own.
        """
        own_s = self._footprint_s(entry)
        ahead: dict[str, float] = {}
        for other in self._in_line(entry.priority):
            ahead[other.tenant] = ahead.get(other.tenant, 0.0) + self._footprint_s(other)
        if not ahead and (not self._running or self.running_s + own_s <= self.limit.seconds):
            return 0.0
        mine_s = ahead.pop(entry.tenant, 0.0) + own_s
        before_s = sum(min(theirs_s, mine_s) for theirs_s in ahead.values())
        to_drain_s = self.running_s + before_s + mine_s - self.limit.seconds
        return max(to_drain_s, 0.0) / self.drain.per_s

    def backlog_s(self) -> float:
        """How long the work that was let in, batch work aside, would take from now."""
        in_line_s = sum(self._footprint_s(one) for one in self._in_line(Priority.INTERACTIVE))
        return in_line_s / self.drain.per_s

    def _in_line(self, priority: Priority) -> Iterator[Entry]:
        """Arriving and waiting work that a newcomer of this priority has before it."""
        begun_s = self._clock() - self.rules.upload_s
        for entry in self._arriving:
            if entry.priority <= priority and entry.since_s >= begun_s:
                yield entry
        for kind, queue in self._queues.items():
            if kind <= priority:
                yield from queue.items()

    def _start(self) -> list[Entry]:
        started = []
        while (queue := self._turn()) is not None:
            entry = queue.head()
            assert entry is not None
            if self._running and not self._fits(entry):
                break
            queue.pop()
            entry.state = State.RUNNING
            self._running[entry] = None
            started.append(entry)
        return started

    def _turn(self) -> FairQueue[Entry] | None:
        """The queue whose head is next: batch work only when it is alone, or has waited long."""
        batch = self._queues[Priority.BATCH]
        head = batch.head()
        if head is not None and self._aged(head):
            return batch
        if len(self._queues[Priority.INTERACTIVE]):
            return self._queues[Priority.INTERACTIVE]
        return batch if head is not None else None

    def _aged(self, entry: Entry) -> bool:
        return self._clock() - entry.since_s >= self.rules.aging_s

    def _fits(self, entry: Entry) -> bool:
        patient = entry.priority is Priority.BATCH and not self._aged(entry)
        share = self.rules.batch_share if patient else 1.0
        return self.running_s + self._footprint_s(entry) <= share * self.limit.seconds

    def _learn(self, entry: Entry, outcome: Outcome | None) -> None:
        footprint_s, running_s = self._footprint_s(entry), self.running_s
        busy = self.waiting > 0 or running_s >= self.limit.seconds
        self.drain.observe(self._clock(), entry.cost_s, busy=busy)
        if outcome is not None and entry.priority is not Priority.BATCH:
            self.limit.observe(
                waited_s=outcome.waited_s,
                worked_s=outcome.worked_s,
                cost_s=footprint_s,
                running_s=running_s,
                running=self.running,
            )

    def _footprint_s(self, entry: Entry) -> float:
        return min(entry.cost_s, self.rules.footprint_s)

    def _full(self, entry: Entry) -> bool:
        """Whether so many are open that a newcomer's tenant has had its share of places."""
        every = [*self._arriving, *self._running, *self._queues[Priority.INTERACTIVE].items()]
        tenants = [one.tenant for one in every if one.priority is not Priority.BATCH]
        if len(tenants) < self.rules.max_open:
            return False
        share = self.rules.max_open // len({*tenants, entry.tenant})
        return tenants.count(entry.tenant) >= share or len(tenants) >= 2 * self.rules.max_open
