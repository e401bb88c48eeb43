"""Admission of one process, put together."""

import time
from collections.abc import Callable, Sequence

from serving.admission.cost import CostModel, Price
from serving.admission.ladder import Ladder
from serving.admission.live import LiveLoad
from serving.admission.policy import AdmissionPolicy, NoRoom, Rules
from serving.admission.turnstile import Turnstile
from serving.metrics import StageSeconds

_LIVE_CALM = 0.6  # live streams that take no more of the machine are no pressure
_PATIENCE = 3.0  # times the expected wait: later arrivals of other tenants may go first


class Entrance:
    """The turnstile for files, the room for live streams, and what is given up for both."""

    def __init__(
        self,
        *,
        max_open: int,
        max_wait_s: float,
        workers: int,
        price: Price | None = None,
        rungs: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rules = Rules(max_open=max_open, max_wait_s=max_wait_s)
        self.policy = AdmissionPolicy(rules, clock=clock)
        self.turnstile = Turnstile(self.policy, CostModel(price), patience_s=_PATIENCE * max_wait_s)
        self.live = LiveLoad(workers=workers, clock=clock)
        self.ladder = Ladder(rungs, clock=clock)
        self._max_wait_s = max_wait_s

    @property
    def files(self) -> int:
        """Uploads that are not answered yet."""
        return self.policy.open

    def change(self, price: Price, rungs: Sequence[str]) -> None:
        """Another model costs another price and can give up other things."""
        self.turnstile.costs.price = price
        self.ladder.change(rungs)

    def look(self) -> int:
        """Take the pressure; gives the ladder's level."""
        waits = self.policy.backlog_s() / max(self._max_wait_s, 1e-6)
        live = (self.live.taken() - _LIVE_CALM) / (1.0 - _LIVE_CALM)
        self.ladder.observe(max(waits, live))
        self.policy.only_at_once = self.ladder.refusing
        return self.ladder.level

    def require_stream(self, streams: int) -> None:
        """`NoRoom` when the ``streams`` that are open leave none for one more."""
        self.look()
        if self.ladder.refusing:
            raise NoRoom(self._max_wait_s)
        self.live.require_room(streams)

    def stream_spent(self, seconds: StageSeconds) -> None:
        """What a chunk of a live stream took."""
        self.live.observe(model_s=seconds.model, worker_s=seconds.features + seconds.decoding)
