"""Room for live streams: they cannot wait, so a new one is let in only while all keep up."""

from collections import deque
from collections.abc import Callable

from serving.admission.policy import NoRoom

_WINDOW_S = 10.0
_RETRY_S = 2.0


class LiveLoad:
    """What open streams take of the model and of the worker threads, lately."""

    def __init__(self, *, workers: int, share: float = 0.8, clock: Callable[[], float]) -> None:
        self._workers = workers
        self._share = share
        self._clock = clock
        self._work: deque[tuple[float, float, float]] = deque()
        self._since_s = clock()

    def observe(self, *, model_s: float, worker_s: float) -> None:
        """A chunk was answered: time of the model and of a worker thread."""
        self._work.append((self._clock(), model_s, worker_s))

    def taken(self) -> float:
        """The fuller of the two resources: 1.0 is all of it."""
        now_s = self._clock()
        while self._work and self._work[0][0] < now_s - _WINDOW_S:
            self._work.popleft()
        over_s = min(_WINDOW_S, max(now_s - self._since_s, 1.0))
        model_s = sum(entry[1] for entry in self._work)
        worker_s = sum(entry[2] for entry in self._work)
        return max(model_s, worker_s / self._workers) / over_s

    def require_room(self, streams: int) -> None:
        """`NoRoom` when one more of the ``streams`` that are open would make all of them late."""
        if streams and self.taken() * (streams + 1) / streams > self._share:
            raise NoRoom(_RETRY_S)
