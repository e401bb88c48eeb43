"""Redis Streams carry the news of waiting work between services; the database holds the work."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from serving.jobs import bell as bells
from serving.jobs.bell import RedisBell
from serving.jobs.changes import NEW_WORK
from serving.settings import JobSettings
from tests.support_bundle import make_bundle
from tests.support_receiver import receiving
from tests.support_redis import redis_server
from tests.support_service import running
from tests.unit.test_serving_jobs_api import ended, submit, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with redis_server() as address:
        yield address


@pytest.fixture
def address(server: str) -> Iterator[str]:
    with redis.Redis.from_url(server) as client:
        client.flushall()
    yield server


@pytest.fixture
def only_the_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself while a test lasts."""
    monkeypatch.setattr(bells, "_REDIS_LOOK_S", 600.0)


@pytest.mark.usefixtures("only_the_bell")
def test_a_job_accepted_here_is_run_and_told_of_there(address: str, tmp_path: Path) -> None:
    """The accepting service has no runners; only the other one can have heard of the job."""
    bundle_dir = make_bundle(tmp_path / "tiny")
    with receiving() as receiver:
        shared = {
            "folder": tmp_path / "jobs", "redis": address, "outbound_openings": receiver.opening,
        }  # fmt: skip
        taking = JobSettings(**shared, runners=0)
        with (
            running(bundle_dir, jobs=taking) as (here, _),
            running(bundle_dir, jobs=JobSettings(**shared)) as (there, _),
        ):
            endpoint = here.post("/v1/webhooks", json={"url": receiver.url}).json()["id"]
            with redis.Redis.from_url(address) as client:  # two runners, twice four senders
                until(lambda: client.info("clients")["blocked_clients"] == 10)
            for _ in range(3):
                job_id = submit(here, webhook=endpoint).json()["id"]
                assert ended(there, job_id)["status"] == "done"
                assert here.get(f"/v1/jobs/{job_id}").json()["status"] == "done"
            until(lambda: len(receiver.got) == 3)


@pytest.mark.usefixtures("only_the_bell")
def test_a_ring_wakes_one_ear_and_none_is_missed(address: str) -> None:
    async def meet() -> list[int]:
        bell = RedisBell(address)
        heard = [0, 0]

        async def listen(index: int) -> None:
            with bell.listening(NEW_WORK) as ear:
                while True:
                    await ear.heard()
                    heard[index] += 1

        await bell.ring(NEW_WORK)  # before anybody listens
        tasks = [asyncio.create_task(listen(index)) for index in range(2)]
        for _ in range(9):
            await bell.ring(NEW_WORK)
        async with asyncio.timeout(60):
            with redis.Redis.from_url(address) as client:
                while sum(heard) < 10 or _group(client).get("lag") != 0:
                    await asyncio.sleep(0.01)
                group = _group(client)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bell.close()
        return [sum(heard), group["entries-read"], group["pending"]]

    heard, rings, pending = asyncio.run(meet())
    assert (rings, pending) == (10, 0)
    assert heard <= 12  # whoever finds no group yet makes it, and hears nothing


def _group(client: "redis.Redis") -> dict[str, Any]:
    """What the server knows of the group; nothing before it exists."""
    try:
        (group,) = client.xinfo_groups(f"auricle:jobs:{NEW_WORK}")
    except redis.ResponseError:
        return {}
    return dict(group)


def test_without_its_server_the_service_looks_by_itself(tmp_path: Path) -> None:
    settings = JobSettings(folder=tmp_path / "jobs", redis=f"unix://{tmp_path}/nobody")
    with running(make_bundle(tmp_path / "tiny"), jobs=settings) as (client, _):
        assert ended(client, submit(client).json()["id"])["status"] == "done"


def test_a_server_that_forgot_everything_is_joined_again(address: str, tmp_path: Path) -> None:
    settings = JobSettings(folder=tmp_path / "jobs", redis=address)
    with running(make_bundle(tmp_path / "tiny"), jobs=settings) as (client, _):
        assert ended(client, submit(client).json()["id"])["status"] == "done"
        with redis.Redis.from_url(address) as server:
            server.flushall()
        assert ended(client, submit(client).json()["id"])["status"] == "done"
