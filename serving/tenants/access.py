"""Who did what, when: access events in an append-only, hash-chained log. Never what was said.

Each month has a file and a chain of its own, so that old months can be archived and removed.
A request only puts its event into a queue; one thread commits what has come in together. When the
log cannot be written and the queue is full, requests are refused: nobody gets in unseen.
"""

import queue
import threading
from datetime import UTC, datetime
from pathlib import Path

from governance.ledger import Draft, Ledger
from serving import logs
from serving.problems import ApiProblem
from serving.tenants.caller import Caller

_QUEUED = 10_000
_BATCH = 500
_RETRY_S = 1.0


def access_ledger(folder: Path, month: str = "") -> Ledger:
    """The log of a month such as ``2026-11`` (the present one), for writing, listing and verifying."""
    name = month or _utc_now()[:7]
    path = folder / f"access-{name}.sqlite"
    return Ledger(path, key_dir=folder / "signing" / name, clock=_utc_now)


class AccessLog:
    """Collects events and commits them on a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._queue: queue.Queue[Draft | None] = queue.Queue(_QUEUED)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def note(self, kind: str, caller: Caller, *, route: str = "", scope: str = "") -> None:
        """Put an event on its way; 503 when none can be kept."""
        body = {"tenant": caller.tenant, "route": route, "scope": scope, "granted": caller.granted}
        actor = caller.key_id or "anybody"
        try:
            self._queue.put_nowait(Draft(kind=kind, body=body, actor=actor))
        except queue.Full:
            raise ApiProblem(
                503, "Access cannot be recorded now.", code="audit_unavailable", retry_after_s=5
            ) from None

    def close(self) -> None:
        """Commit what is queued, then stop."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            drafts = [draft for draft in batch if draft is not None]
            while drafts and not self._committed(drafts):
                if self._stopping.wait(_RETRY_S):
                    return
            if None in batch:
                return

    def _committed(self, drafts: list[Draft]) -> bool:
        try:
            access_ledger(self._folder).append_all(drafts)
        except Exception as error:  # whatever it is, the thread must not end: it tries again
            logs.crash("access_log_failed", error)
            return False
        return True


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
