"""Whether a speaker's earlier recordings warm the front end: a look-up with a deadline."""

import threading
import time
from pathlib import Path

import numpy as np

from features.bundle import BundleConfig
from features.priors import DEFAULT_TENANT, Prior, PriorKey, PriorView, channel_of
from governance.errors import ConfigError
from serving import logs
from serving.engine.breaker import Breaker
from serving.front.front_end import StartState

_LATE = 0.9  # of the deadline: a view that is locked gives up a little before it


class WarmStart:
    """Chooses the prior of one recording or stream; it is fixed from then on."""

    def __init__(
        self,
        config: BundleConfig,
        priors_path: Path | None,
        *,
        tenant: str = DEFAULT_TENANT,
        deadline_ms: float = 20.0,
    ) -> None:
        self._config = config
        self._tenant = tenant
        self._deadline_ms = deadline_ms
        self._view = _open(priors_path)
        self._breaker = Breaker(clock=time.monotonic)
        self._lock = threading.Lock()  # workers look up side by side
        self._cold = StartState(
            mean_F=np.asarray(config.norm.mean, np.float32),
            std_F=np.asarray(config.norm.std, np.float32),
            prior_frames=config.norm.prior_frames,
        )

    def begin(self, speaker: str | None, *, native_rate_hz: int) -> StartState:
        """The speaker's prior where it is known in time, the bundle's own otherwise."""
        if self._view is None or not speaker:
            return self._cold
        key = PriorKey(
            tenant=self._tenant,
            speaker=speaker,
            channel=channel_of(native_rate_hz),
            fingerprint=self._config.feature_fingerprint,
        )
        prior = self._looked_up(self._view, key)
        if prior is None or prior.mean_F.shape != self._cold.mean_F.shape:
            return self._cold
        return StartState(
            mean_F=prior.mean_F,
            std_F=self._cold.std_F,
            prior_frames=self._cold.prior_frames,
            prior_digest=prior.digest,
        )

    def _looked_up(self, view: PriorView, key: PriorKey) -> Prior | None:
        """A view that is late again and again costs nobody its deadline for a while."""
        with self._lock:
            if not self._breaker.allows():
                return None
        began = time.monotonic()
        prior = view.lookup(key, deadline_ms=self._deadline_ms)
        spent_ms = 1000 * (time.monotonic() - began)
        late = prior is None and spent_ms >= _LATE * self._deadline_ms
        with self._lock:
            if late:
                self._breaker.failed()
            else:
                self._breaker.succeeded()
        return prior

    def close(self) -> None:
        """Let go of the view."""
        if self._view is not None:
            self._view.close()


def _open(path: Path | None) -> PriorView | None:
    """A view that cannot be read costs warmth, not the service; the log says so."""
    if path is None:
        return None
    try:
        return PriorView(path)
    except ConfigError as error:
        logs.crash("priors_unavailable", error)
        return None
