"""A clock that stands still, and jobs as tests submit them."""

from dataclasses import dataclass
from typing import Any

from serving.jobs.records import (
    IdempotencyKey,
    JobDraft,
    JobRequest,
)
from serving.jobs.store import StoreRules

RULES = StoreRules(lease_s=30, max_attempts=2, ttl_s=100, key_ttl_s=50, max_open_jobs=5)


@dataclass
class Clock:
    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def draft(job_id: str, tenant: str = "north", **choices: Any) -> JobDraft:
    request = JobRequest(model="tiny")
    return JobDraft(id=job_id, tenant=tenant, request=request, blob=f"blob.{job_id}", **choices)


def key(name: str, fingerprint: str = "f", tenant: str = "north") -> IdempotencyKey:
    return IdempotencyKey(tenant=tenant, route="/v1/jobs", key=name, fingerprint=fingerprint)
