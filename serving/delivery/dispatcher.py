"""Sends what the outbox holds: signed anew at every attempt, the body as it was frozen.

Delivery is at least once. A receiver that answers 2xx has it; a process that dies between that
answer and its commit sends it again, with the same ``webhook-id`` and the same bytes.
"""

import asyncio
import email.utils
import random
from dataclasses import dataclass

from serving import logs
from serving.delivery.addresses import parse_url
from serving.delivery.outbound import Answer, Call, Outbound, OutboundError
from serving.delivery.outbox import Outbox, Sending, Settlement
from serving.delivery.signing import signed_headers
from serving.jobs.aside import aside
from serving.jobs.bell import Bell
from serving.jobs.changes import NEW_WEBHOOK
from serving.jobs.database import StoreUnavailable
from serving.jobs.failpoints import failpoint
from serving.metrics import ServiceMetrics
from serving.observe.spans import Recorder, Trace, untraced
from serving.problems import ApiProblem

_GONE = 410


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential with full jitter: receivers that come back are not met by all at once."""

    first_s: float = 5.0
    longest_s: float = 6 * 3600.0
    attempts: int = 15  # about 15 hours on the average

    def delay_s(self, attempt: int, chance: float, asked_s: float | None) -> float:
        """Until the next attempt; a receiver's Retry-After is heeded up to the longest."""
        ceiling_s = min(self.longest_s, self.first_s * 2.0 ** min(attempt - 1, 40))
        return max(chance * ceiling_s, min(asked_s or 0.0, self.longest_s))


class Dispatcher:
    """Several senders on one event loop."""

    def __init__(
        self,
        outbox: Outbox,
        outbound: Outbound,
        bell: Bell,
        metrics: ServiceMetrics,
        *,
        senders: int,
        timeout_s: float,
        backoff: Backoff | None = None,
        tell_trace: bool = False,
    ) -> None:
        """``tell_trace``: receivers get a ``traceparent``, so that their spans join the caller's."""
        self._outbox = outbox
        self._outbound = outbound
        self._bell = bell
        self._metrics = metrics
        self._senders = senders
        self._timeout_s = timeout_s
        self._backoff = backoff or Backoff()
        self._tell_trace = tell_trace
        self._chance = random.SystemRandom()
        self.trace: Trace = untraced
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to send."""
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(self._senders)]

    async def close(self) -> None:
        """Stop; a message that is under way will be sent again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self) -> None:
        with self._bell.listening(NEW_WEBHOOK) as ear:
            while True:
                try:
                    if sending := await aside(self._outbox.claim):
                        await self._send(sending)
                        continue
                except StoreUnavailable as error:
                    logs.crash("job_store_unavailable", error)
                await ear.heard()

    async def _send(self, sending: Sending) -> None:
        with self.trace("webhook", sending.trace, sending.attempts) as span:
            settlement = await self._attempt(sending, span)
            if span is not None:
                delivered = settlement.state == "delivered"
                span.ended(settlement.state, status=settlement.status, failed=not delivered)
        failpoint("webhook_sent")
        await aside(self._outbox.settle, sending, settlement)
        outcome = "retry" if settlement.state == "pending" else settlement.state
        self._metrics.webhooks.labels(outcome).inc()
        logs.event("webhook", outcome=outcome, status=settlement.status or 0)

    async def _attempt(self, sending: Sending, span: Recorder | None) -> Settlement:
        now_s = int(self._outbox.clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Auricle-Webhooks/1",
            **signed_headers(
                sending.id, sending.body, timestamp_s=now_s, signing_secrets=sending.secrets
            ),
        }
        if self._tell_trace and span is not None:
            headers["traceparent"] = span.traceparent
        try:
            place = parse_url(sending.url, self._outbound.policy.openings, param="url")
            call = Call(method="POST", place=place, headers=headers, body=sending.body)
            answer = await self._outbound.call(call, timeout_s=self._timeout_s)
        except (OutboundError, ApiProblem) as error:
            return self._failed(sending, None, error.message)
        if 200 <= answer.status < 300:
            return Settlement(state="delivered", status=answer.status)
        if answer.status == _GONE:
            return Settlement(state="dead", status=_GONE, error="410 Gone", gone=True)
        return self._failed(sending, answer, f"the receiver answered {answer.status}")

    def _failed(self, sending: Sending, answer: Answer | None, why: str) -> Settlement:
        status = answer.status if answer else None
        if sending.attempts >= self._backoff.attempts:
            return Settlement(state="dead", status=status, error=why)
        asked_s = retry_after_s(answer, self._outbox.clock()) if answer else None
        delay_s = self._backoff.delay_s(sending.attempts, self._chance.random(), asked_s)
        due_s = self._outbox.clock() + delay_s
        return Settlement(state="pending", status=status, error=why, due_s=due_s)


def retry_after_s(answer: Answer, now_s: float) -> float | None:
    """Seconds that the receiver asks for, given as a number or as a date."""
    text = answer.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None
