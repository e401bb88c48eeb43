"""A circuit breaker: what fails again and again is left alone for a while, then tried once."""

from collections.abc import Callable


class Breaker:
    """One owner, or calls under one lock; the clock only ever goes forward."""

    def __init__(
        self, *, failures: int = 5, rest_s: float = 5.0, clock: Callable[[], float]
    ) -> None:
        self._most = failures
        self._rest_s = rest_s
        self._clock = clock
        self._failed = 0  # in a row
        self._until_s: float | None = None  # open until then

    @property
    def may_work(self) -> bool:
        """Whether the next call would be let through; asking changes nothing."""
        return self._until_s is None or self._clock() >= self._until_s

    @property
    def wait_s(self) -> float:
        """Until the next trial."""
        return 0.0 if self._until_s is None else max(0.0, self._until_s - self._clock())

    def allows(self) -> bool:
        """Whether to call now. After the rest one caller is let through, and the rest begins anew."""
        if self._until_s is None:
            return True
        now_s = self._clock()
        if now_s < self._until_s:
            return False
        self._until_s = now_s + self._rest_s
        return True

    def succeeded(self) -> None:
        """A call went well: everything is as ever."""
        self._failed, self._until_s = 0, None

    def failed(self) -> None:
        """A call failed."""
        self._failed += 1
        if self._failed >= self._most:
            self._until_s = self._clock() + self._rest_s
