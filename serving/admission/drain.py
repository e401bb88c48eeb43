"""How fast work is done when there is enough of it, in seconds of work per second."""

from collections import deque

_WINDOW = 64  # ends looked at
_ENOUGH = 4
_SHORTEST_S = 0.02
_SLOWEST = 0.02


class DrainRate:
    """Learns from ends while the service is busy; between busy times it remembers."""

    def __init__(self, initial: float = 1.0) -> None:
        self._rate = initial
        self._ends: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    @property
    def per_s(self) -> float:
        """Seconds of work done per second."""
        return self._rate

    def observe(self, now_s: float, cost_s: float, *, busy: bool) -> None:
        """Work of ``cost_s`` was done; idle time between two ends would say nothing."""
        if not busy:
            self._ends.clear()
            return
        self._ends.append((now_s, cost_s))
        span_s = now_s - self._ends[0][0]
        if len(self._ends) > _ENOUGH and span_s >= _SHORTEST_S:
            done_s = sum(cost for _, cost in self._ends) - self._ends[0][1]
            self._rate = max(done_s / span_s, _SLOWEST)
