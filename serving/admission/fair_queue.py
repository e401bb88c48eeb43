"""Start-time fair queueing: waiting work of many tenants in an order that is fair by its cost.

Every item gets a start tag: the queue's virtual time, or the finish tag of its tenant's last item if
that is later. The smallest start tag is served and becomes the virtual time. While two tenants both
wait, what they get differs by at most one largest item of each (Goyal, Vin and Cheng, 1996).
"""

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(kw_only=True, order=True)
class _Slot(Generic[Item]):
    start: float
    order: int
    tenant: str = field(compare=False)
    finish: float = field(compare=False)
    item: Item = field(compare=False)
    taken: bool = field(default=False, compare=False)


class FairQueue(Generic[Item]):
    """One owner, no thread. Items are compared by identity."""

    def __init__(self) -> None:
        self._heap: list[_Slot[Item]] = []
        self._slots: dict[int, _Slot[Item]] = {}
        self._finish: dict[str, float] = {}  # finish tag of each waiting tenant's last item
        self._virtual = 0.0
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._slots)

    def push(self, item: Item, *, tenant: str, cost: float) -> None:
        """Line up behind the tenant's own items."""
        start = max(self._virtual, self._finish.get(tenant, 0.0))
        slot = _Slot(
            start=start, order=next(self._order), tenant=tenant, finish=start + cost, item=item
        )
        self._finish[tenant] = slot.finish
        self._slots[id(item)] = slot
        heapq.heappush(self._heap, slot)

    def head(self) -> Item | None:
        """Whose turn it is."""
        while self._heap and self._heap[0].taken:
            heapq.heappop(self._heap)
        return self._heap[0].item if self._heap else None

    def pop(self) -> Item:
        """Serve the head."""
        item = self.head()
        assert item is not None, "the queue is empty"
        slot = heapq.heappop(self._heap)
        del self._slots[id(item)]
        self._virtual = slot.start
        self._forget_caught_up()
        return item

    def remove(self, item: Item) -> None:
        """Take an item out; what its tenant lined up last is charged to the tenant no more."""
        slot = self._slots.pop(id(item))
        slot.taken = True
        if self._finish.get(slot.tenant) == slot.finish:
            self._finish[slot.tenant] = slot.start

    def items(self) -> list[Item]:
        """Everything that waits, in the order of arrival."""
        return [slot.item for slot in self._slots.values()]

    def _forget_caught_up(self) -> None:
        """Tags that the virtual time has passed say nothing any more; without items none does."""
        if not self._slots:
            self._virtual = max(self._virtual, *self._finish.values(), 0.0)
            self._finish.clear()
        elif len(self._finish) > 2 * len(self._slots) + 16:
            self._finish = {name: tag for name, tag in self._finish.items() if tag > self._virtual}
