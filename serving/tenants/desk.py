"""Everything that the gate asks about tenants, opened once per process."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from serving.problems import ApiProblem
from serving.settings import ProtectionSettings
from serving.tenants.access import AccessLog
from serving.tenants.authenticator import TOKEN_STREAM_S, Authenticator, Identity
from serving.tenants.caller import ANYBODY, Caller
from serving.tenants.meter import Meter, metered
from serving.tenants.policy import Limits, TenantPolicy
from serving.tenants.store import KeyStore
from serving.tenants.usage import Budget, UsageStore
from serving.tenants.watch import Cut, KeyWatch

USAGE_FILE = "usage.sqlite"
LIMIT_CODES = ("insufficient_quota", "rate_limit_exceeded")  # of a tenant that used up its own
_NOBODYS = Identity(caller=ANYBODY, policy=TenantPolicy(), ends_at=None)


class TenantDesk:
    """Keys, limits, usage and the access log. Without a folder nothing is kept."""

    def __init__(
        self,
        keys: Path | None = None,
        records: Path | None = None,
        *,
        token_stream_s: float = TOKEN_STREAM_S,
    ) -> None:
        self._store = KeyStore(keys) if keys is not None else None
        self.authenticator = (
            Authenticator(self._store, token_stream_s=token_stream_s) if self._store else None
        )
        self._watch = KeyWatch(self.authenticator) if self.authenticator is not None else None
        folder = records or (keys.parent if keys is not None else None)
        self.usage = UsageStore(folder / USAGE_FILE) if folder is not None else None
        self._access = AccessLog(folder) if folder is not None else None

    @property
    def keyed(self) -> bool:
        """Whether callers need a key."""
        return self.authenticator is not None

    def close(self) -> None:
        """Commit what is on its way and let go of the files."""
        if self._access is not None:
            self._access.close()
        if self.usage is not None:
            self.usage.close()
        if self._store is not None:
            self._store.close()

    def identify(self, credential: str) -> Identity:
        """Who presents a credential; without a key store it is nobody's question."""
        return self.authenticator.identify(credential) if self.authenticator else _NOBODYS

    def holding(self, identity: Identity, cut: Cut) -> AbstractContextManager[None]:
        """Around an open stream: ``cut`` is called when its key or token no longer stands."""
        return nullcontext() if self._watch is None else self._watch.holding(identity, cut)

    def limits(self, tenant: str) -> dict[str, float | None]:
        """What a tenant may use."""
        policy = self._store.tenant(tenant) if self._store is not None else TenantPolicy()
        return asdict(policy.limits)

    def note(self, kind: str, caller: Caller, *, route: str = "", scope: str = "") -> None:
        """Record an access."""
        if self._access is not None:
            self._access.note(kind, caller, route=route, scope=scope)

    @contextmanager
    def admitted(self, identity: Identity, *, route: str, live: bool) -> Iterator[list[Budget]]:
        """Room for one request; 429 when there is none. Audio heard inside is booked."""
        if self.usage is None:
            yield []
            return
        tenant, limits = identity.caller.tenant, identity.policy.limits
        budgets = self.usage.admit(tenant, limits, route=route)
        _refuse_beyond(budgets)
        place = self._place(tenant, limits) if live else None
        meter = Meter(lambda seconds, live: self._hear(tenant, limits, seconds, route, live))
        try:
            with metered(meter):
                yield budgets
        finally:
            if place is not None:
                self.usage.close_stream(place)
            meter.flush()

    @contextmanager
    def booked(self, tenant: str, *, route: str) -> Iterator[None]:
        """Audio heard inside is booked on a tenant, but nothing is refused: for accepted jobs."""
        usage = self.usage
        if usage is None:
            yield
            return
        limits = self._store.tenant(tenant).limits if self._store is not None else Limits()
        meter = Meter(lambda seconds, _: usage.hear(tenant, limits, seconds, route=route))
        try:
            with metered(meter):
                yield
        finally:
            meter.flush()

    def _place(self, tenant: str, limits: Limits) -> int:
        assert self.usage is not None
        place = self.usage.open_stream(tenant, limits)
        if place is None:
            message = f"All {limits.streams} live streams of this tenant are taken."
            raise ApiProblem(429, message, code="concurrent_streams", retry_after_s=1)
        return place

    def _hear(self, tenant: str, limits: Limits, seconds: float, route: str, live: bool) -> None:
        """Book; only a stream that goes on can still be refused."""
        assert self.usage is not None
        budgets = self.usage.hear(tenant, limits, seconds, route=route)
        if live:
            _refuse_beyond(budgets)


def _refuse_beyond(budgets: Sequence[Budget]) -> None:
    """429 with the longest wait, and what is left of every limit."""
    spent = [budget for budget in budgets if budget.wait_s > 0]
    if not spent:
        return
    worst = max(spent, key=lambda budget: budget.wait_s)
    quota = worst.kind.endswith(("-day", "-month"))
    raise ApiProblem(
        429,
        f"You exceeded your quota of {worst.limit:g} {worst.kind}."
        if quota
        else f"Rate limit reached: {worst.limit:g} {worst.kind} per minute.",
        code=LIMIT_CODES[0] if quota else LIMIT_CODES[1],
        retry_after_s=math.ceil(worst.wait_s),
        more_headers=budget_headers(budgets),
    )


def open_desk(protection: ProtectionSettings) -> TenantDesk:
    """The desk that the operator asked for."""
    return TenantDesk(
        protection.keys_path, protection.records_dir, token_stream_s=protection.token_stream_s
    )


def budget_headers(budgets: Sequence[Budget]) -> dict[str, str]:
    """``x-ratelimit-limit-requests`` and its kin, as OpenAI sends them."""
    headers = {}
    for budget in budgets:
        headers[f"x-ratelimit-limit-{budget.kind}"] = f"{budget.limit:g}"
        headers[f"x-ratelimit-remaining-{budget.kind}"] = str(int(budget.remaining))
        headers[f"x-ratelimit-reset-{budget.kind}"] = _duration(budget.reset_s)
    return headers


def _duration(seconds: float) -> str:
    """``6m12s``, ``850ms``: as OpenAI writes it."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, left = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{left}s" if minutes else f"{left}s"
