"""How much audio a request takes in: booked where audio is heard, on behalf of whoever asked.

The gate opens a meter around a request; code that hears audio calls `heard` and need not know of
tenants. What runs outside any request (a job) opens its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FLUSH_S = 2.0  # of audio, between two bookings of a live stream
Book = Callable[[float, bool], object]  # seconds; whether the stream still goes on


class Meter:
    """Seconds of one request; books them in steps, so that a long stream costs few writes."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._open_s = 0.0

    def add(self, seconds: float, *, live: bool) -> None:
        """Count; the booking of a live stream refuses what goes beyond the tenant's quota."""
        self._open_s += seconds
        if self._open_s >= _FLUSH_S:
            self.flush(live=live)

    def flush(self, *, live: bool = False) -> None:
        """Book what is left."""
        if self._open_s:
            seconds, self._open_s = self._open_s, 0.0
            self._book(seconds, live)


_current: ContextVar[Meter | None] = ContextVar("auricle_meter", default=None)


def heard(seconds: float, *, live: bool) -> None:
    """Audio was taken in, in the present request's context."""
    meter = _current.get()
    if meter is not None:
        meter.add(seconds, live=live)


@contextmanager
def metered(meter: Meter) -> Iterator[Meter]:
    """Everything heard inside goes to this meter."""
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)
