"""Admission of one process, put together."""

import time
from collections.abc import Callable

from serving.admission.cost import CostModel, Price
from serving.admission.live import LiveLoad
from serving.admission.policy import AdmissionPolicy, Rules
from serving.admission.turnstile import Turnstile
from serving.metrics import StageSeconds

_PATIENCE = 3.0  # times the expected wait: later arrivals of other tenants may go first


class Entrance:
    """The turnstile for files, and the room for live streams."""

    def __init__(
        self,
        *,
        max_open: int,
        max_wait_s: float,
        workers: int,
        price: Price | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rules = Rules(max_open=max_open, max_wait_s=max_wait_s)
        self.policy = AdmissionPolicy(rules, clock=clock)
        self.turnstile = Turnstile(self.policy, CostModel(price), patience_s=_PATIENCE * max_wait_s)
        self.live = LiveLoad(workers=workers, clock=clock)

    @property
    def files(self) -> int:
        """Uploads that are not answered yet."""
        return self.policy.open

    def stream_spent(self, seconds: StageSeconds) -> None:
        """What a chunk of a live stream took."""
        self.live.observe(model_s=seconds.model, worker_s=seconds.features + seconds.decoding)
