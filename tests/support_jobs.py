"""A service with jobs that is killed again and again, a client that never gives up, and the books."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from serving.packaging.launch import serve_environment
from tests.support_bundle import babble
from tests.support_receiver import Delivery, Receiver
from tests.support_service import wav

ROOT = Path(__file__).resolve().parent.parent
_LIMIT_S = 240.0  # machines under other load start slowly
SHORT = wav(babble(1.0))
_TILE_S = 100.0


def long_audio(tiles: int) -> bytes:
    """A hundred seconds, again and again."""
    return wav(np.tile(babble(_TILE_S), tiles))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quick_host(port: int) -> list[str]:
    return [sys.executable, "-m", "tests.support_jobs_host", str(port)]


class Host:
    """The service's process; `ensure` starts it again whenever it has died."""

    def __init__(
        self,
        folder: Path,
        bundle_dir: Path,
        receiver: Receiver,
        command: Callable[[int], Sequence[str]] = quick_host,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.armed = folder / "armed"
        self.armed.mkdir(parents=True, exist_ok=True)
        self.store = folder / "jobs"
        self.log = folder / "log"
        self.port = free_port()
        self.starts = 0
        self._command = command(self.port)
        base = dict(os.environ)
        base |= {
            "AURICLE_JOB_LEASE_S": "1",
            "AURICLE_JOB_ATTEMPTS": "1000",
            "AURICLE_WEBHOOK_ATTEMPTS": "1000",
            "AURICLE_WEBHOOK_BACKOFF_S": "0.01",
            "AURICLE_OUTBOUND_ALLOW": receiver.opening,
            "AURICLE_FAILPOINTS": str(self.armed),
            "AURICLE_DRAIN_S": "0.05",
            "PYTHONPATH": str(ROOT),
            **(variables or {}),
        }
        self._environment = serve_environment(
            base, bundle_dir=bundle_dir, bentoml_home=folder / "home", jobs_dir=self.store
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start it if it is not running."""
        if self._process is not None and self._process.poll() is None:
            return
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                self._command, env=self._environment, cwd=ROOT, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip
        self.starts += 1

    def wait_ready(self) -> None:
        """Until it answers; one that dies meanwhile is somebody else's to start again."""
        while self._process is not None and self._process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/v1/models", timeout=5.0).status_code == 200:
                    return
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """To the whole process group; one that is gone is no error."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(20)


@contextmanager
def hosting(host: Host) -> Iterator[Host]:
    try:
        yield host
    finally:
        host.stop()


@dataclass
class Customer:
    """Sends until it is answered, and keeps what it was promised."""

    host: Host
    promised: dict[str, str] = field(default_factory=dict)  # key -> job
    erased: set[str] = field(default_factory=set)
    bodies: dict[str, bytes] = field(default_factory=dict)  # key -> the first 202
    endpoint: str = ""

    def ask(self, method: str, path: str, **choices: Any) -> httpx.Response:
        end = time.monotonic() + _LIMIT_S
        while time.monotonic() < end:
            self.host.begin()
            try:
                answer = httpx.request(method, self.host.url + path, timeout=20.0, **choices)
            except httpx.HTTPError:
                time.sleep(0.02)
                continue
            flying = answer.status_code == 409 and "in_flight" in answer.text
            if answer.status_code not in (502, 503) and not flying:
                return answer
            time.sleep(0.02)
        raise AssertionError(f"{method} {path}: no answer\n{self.host.log.read_text()[-4000:]}")

    def register(self, receiver: Receiver) -> None:
        answer = self.ask("POST", "/v1/webhooks", json={"url": receiver.url})
        assert answer.status_code == 201, answer.text
        self.endpoint = answer.json()["id"]

    def submit(self, key: str, content: bytes = SHORT) -> str:
        answer = self.ask(
            "POST",
            "/v1/jobs",
            data={"model": "tiny", "webhook": self.endpoint},
            files={"file": ("a.wav", content)},
            headers={"Idempotency-Key": key},
        )
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["id"])
        assert self.promised.setdefault(key, job_id) == job_id, "one key, two jobs"
        assert self.bodies.setdefault(key, answer.content) == answer.content
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.ask("GET", f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, f"an accepted job is lost: {job_id}"
        return dict(answer.json())

    def cancel(self, job_id: str) -> None:
        answer = self.ask("POST", f"/v1/jobs/{job_id}/cancel")
        assert answer.status_code in (200, 409), answer.text

    def erase(self, job_id: str) -> None:
        answer = self.ask("DELETE", f"/v1/jobs/{job_id}")
        assert answer.status_code in (200, 404), answer.text  # 404: the answer was lost
        self.erased.add(job_id)

    def until(self, what: Callable[[], Any]) -> None:
        end = time.monotonic() + _LIMIT_S
        while not what():
            assert time.monotonic() < end, self.host.log.read_text()[-4000:]
            time.sleep(0.02)

    def settled(self, receiver: Receiver) -> bool:
        """Whether every promised job has ended and has been told of."""
        told = {told_of(delivery)[0] for delivery in list(receiver.got)}
        left = [i for i in self.promised.values() if i not in self.erased and i not in told]
        if left:
            self.host.begin()
            return False
        return True


def told_of(delivery: Delivery) -> tuple[str, str]:
    """The job of a message, and how it ended."""
    job = json.loads(delivery.body)["data"]["job"]
    return job["id"], job["status"]


def workload(customer: Customer, receiver: Receiver, name: str, *, long: bool = False) -> None:
    """Passes every commit point but that of giving back; ends when all is settled."""
    if long:
        customer.submit(f"{name}-long", long_audio(4))
    first = customer.submit(f"{name}-1")
    second = customer.submit(f"{name}-2")
    slow = long_audio(4) if name.endswith("_cancel") else SHORT  # not over before it is cancelled
    customer.cancel(customer.submit(f"{name}-3", slow))
    customer.erase(customer.submit(f"{name}-4"))
    customer.until(lambda: customer.settled(receiver))
    for job_id in (first, second):
        assert customer.job(job_id)["status"] == "done"
    messages = customer.ask("GET", "/v1/webhooks/messages", params={"limit": 100}).json()["data"]
    message = next(entry for entry in messages if entry["job"] == first)
    before = len(receiver.got)
    answer = customer.ask("POST", f"/v1/webhooks/messages/{message['id']}/redeliver")
    assert answer.status_code == 202
    customer.until(lambda: customer.host.begin() or len(receiver.got) > before)


def drained_in_the_middle(customer: Customer, name: str) -> None:
    """SIGTERM while a long job runs: it is given back."""
    job_id = customer.submit(f"{name}-long", long_audio(16))
    customer.until(lambda: customer.job(job_id)["status"] != "queued")
    customer.host.signal(signal.SIGTERM)
    process = customer.host._process
    assert process is not None
    process.wait(60)


def swept_in_the_middle(customer: Customer, receiver: Receiver, name: str) -> None:
    """With a time to live of a second: killed at the sweep, what is past its time still goes."""
    job_id = customer.submit(f"{name}-1")
    customer.until(lambda: customer.settled(receiver))
    expires_at = customer.job(job_id)["expires_at"]
    customer.until(lambda: time.time() > expires_at + 1)
    (customer.host.armed / name).touch()
    customer.host.stop()  # the next start sweeps
    customer.until(lambda: customer.host.begin() or not (customer.host.armed / name).exists())
    customer.until(lambda: customer.ask("GET", f"/v1/jobs/{job_id}/result").status_code != 200)
    for message in customer.ask("GET", "/v1/webhooks/messages").json()["data"]:
        assert message["job"] != job_id, "an expired job's message is kept"
    del customer.promised[f"{name}-1"]


def check_books(customer: Customer, receiver: Receiver) -> int:
    """Nothing lost, nothing doubled, nothing told in two ways; the number of messages received."""
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        query = {"limit": "100", **after}
        page = customer.ask("GET", "/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    promised = set(customer.promised.values()) - customer.erased
    assert len(seen) == len(set(seen)) and promised <= set(seen), "an accepted job is lost"
    assert set(seen) == promised, "a request became two jobs"
    bodies, ids = defaultdict(set), defaultdict(set)
    for delivery in receiver.got:
        bodies[delivery.headers["webhook-id"]].add(delivery.body)
        ids[told_of(delivery)[0]].add(delivery.headers["webhook-id"])
    assert all(len(texts) == 1 for texts in bodies.values()), "a webhook's body differs"
    assert all(len(names) == 1 for names in ids.values()), "a job was told of under two ids"
    for job_id, status in {told_of(delivery) for delivery in receiver.got}:
        if job_id in promised:
            assert customer.job(job_id)["status"] == status
    return len(receiver.got)
