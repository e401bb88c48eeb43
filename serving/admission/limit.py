"""How much work may be under way at once: found by listening to the queue, as TCP Vegas does.

A finished request tells how long it waited inside for every second of its own steps. Little waiting
while the limit is used up: more could run, and batches would be fuller. Much waiting: the model is
saturated, and more work under way only makes everybody's answer later.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LimitRules:
    """Bounds of the limit, in seconds of work, and where waiting should lie."""

    floor_s: float = 0.5
    ceiling_s: float = 120.0
    start_s: float = 4.0
    low: float = 1.0  # waited as long as worked: a batch lies ready when the model comes free
    high: float = 2.0
    grows_by: float = 0.1  # of itself in a round of requests, at least by one request
    falls_by: float = 0.5  # of itself in a round, at most


class AdaptiveLimit:
    """One owner, no clock: time comes with the observations."""

    def __init__(self, rules: LimitRules | None = None) -> None:
        self._rules = rules or LimitRules()
        self.seconds = min(max(self._rules.start_s, self._rules.floor_s), self._rules.ceiling_s)

    def observe(
        self, *, waited_s: float, worked_s: float, cost_s: float, running_s: float, running: int
    ) -> None:
        """A request of ``cost_s`` ended while ``running`` of ``running_s`` together were under way.

        Every end moves the limit by its share of the round that all of them make.
        """
        rules = self._rules
        ratio = waited_s / max(worked_s, 1e-6)
        if ratio > rules.high:
            excess = min(1.0 - rules.high / ratio, rules.falls_by)
            self.seconds -= self.seconds * excess / max(1, running)
        elif ratio < rules.low and running_s + cost_s > self.seconds:  # it binds
            self.seconds += max(cost_s, rules.grows_by * self.seconds) / max(1, running)
        self.seconds = min(max(self.seconds, rules.floor_s), rules.ceiling_s)
