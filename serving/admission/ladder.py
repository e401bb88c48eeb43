"""What is given up under pressure, one rung after another, and taken back when it has passed.

Pressure is the expected wait (or what live streams take) as a share of what is allowed. A rung is
taken only when the pressure has lasted, and left only when it has been low for longer, so that the
service does not swing. The last rung, ``refuse``, lets in only what can start at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

REFUSE = "refuse"


@dataclass(frozen=True, kw_only=True)
class LadderRules:
    """When a rung is taken and left."""

    high: float = 0.5
    low: float = 0.2
    up_s: float = 2.0  # of pressure above ``high``, for every rung
    down_s: float = 10.0  # of pressure below ``low``, for every rung


class Ladder:
    """One owner. ``rungs`` are names, the mildest first; `REFUSE` is added at the end."""

    def __init__(
        self,
        rungs: Sequence[str],
        rules: LadderRules | None = None,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.rungs = (*rungs, REFUSE)
        self.level = 0  # so many rungs are in force
        self._rules = rules or LadderRules()
        self._clock = clock
        self._side = 0  # 1 while the pressure is high, -1 while it is low
        self._since_s = clock()

    def change(self, rungs: Sequence[str]) -> None:
        """Another model has other rungs; what refuses goes on refusing."""
        refusing = self.refusing
        self.rungs = (*rungs, REFUSE)
        self.level = len(self.rungs) if refusing else min(self.level, len(rungs))

    @property
    def degradation(self) -> tuple[str, ...]:
        """What is given up in an answer that begins now."""
        return tuple(name for name in self.rungs[: self.level] if name != REFUSE)

    @property
    def refusing(self) -> bool:
        """Whether only what can start at once is let in."""
        return self.level == len(self.rungs)

    def observe(self, pressure: float) -> int:
        """Take the pressure of now; gives the level."""
        now_s, rules = self._clock(), self._rules
        side = (pressure > rules.high) - (pressure < rules.low)
        if self._side > 0 and side > 0:
            self._move(1, rules.up_s, now_s)
        elif self._side < 0:  # it stayed low until now: quiet times without requests count
            self._move(-1, rules.down_s, now_s)
        if side != self._side:
            self._side, self._since_s = side, now_s
        return self.level

    def _move(self, step: int, hold_s: float, now_s: float) -> None:
        while now_s - self._since_s >= hold_s and 0 <= self.level + step <= len(self.rungs):
            self.level += step
            self._since_s += hold_s
            if step > 0:  # what was seen once says nothing about several rungs' worth of time
                self._since_s = now_s
