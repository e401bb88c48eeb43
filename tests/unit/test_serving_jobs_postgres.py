"""The job store on a real Postgres server: the same dictionary, the same service."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from serving.delivery.outbox import Outbox, Settlement
from serving.jobs.database import Database, StoreUnavailable
from serving.jobs.postgres import postgres_database
from serving.jobs.records import Outcome
from serving.jobs.store import JobStore, StoreRules
from serving.settings import JobSettings
from tests.properties.test_job_store import StoreAgainstDictionary
from tests.support_bundle import make_bundle
from tests.support_job_store import draft
from tests.support_postgres import postgres_schema, postgres_server
from tests.support_receiver import receiving
from tests.support_service import running
from tests.unit.test_serving_jobs_api import ended, submit, until
from tests.unit.test_serving_jobs_webhooks import verified

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as address:
        yield address


@pytest.fixture
def address(server: str) -> Iterator[str]:
    with postgres_schema(server) as address:
        yield address


def test_any_order_of_calls_does_what_a_dictionary_does(server: str) -> None:
    class OnPostgres(StoreAgainstDictionary):
        def __init__(self) -> None:
            self._stack = ExitStack()
            self._address = self._stack.enter_context(postgres_schema(server))
            super().__init__()

        def open_database(self) -> Database:
            return postgres_database(self._address)

        def teardown(self) -> None:
            super().teardown()
            self._stack.close()

    few = settings(
        max_examples=5,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(OnPostgres, settings=few)


def test_two_processes_never_hold_the_same_job_or_message(address: str) -> None:
    databases = [postgres_database(address) for _ in range(2)]
    stores = [JobStore(database, StoreRules()) for database in databases]
    boxes = [Outbox(database, lease_s=30) for database in databases]
    endpoint, _ = boxes[0].create("north", "https://example.com/")
    for i in range(10):
        stores[0].accept(draft(f"job_{i}", webhook=endpoint.id))
    held: list[str] = []
    sent: list[str] = []

    def drain(store: JobStore, box: Outbox) -> None:
        while job := store.claim():
            held.append(job.id)
            assert store.finish(job, Outcome(result='{"text":"x"}'))
        while message := box.claim():
            sent.append(message.id)
            assert message.body.startswith(b'{"data"')
            assert box.settle(message, Settlement(state="delivered", status=200))

    threads = [
        threading.Thread(target=drain, args=pair) for pair in zip(stores, boxes, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in databases:
        database.close()
    assert len(held) == 10 and len(set(held)) == 10
    assert len(sent) == 10 and len(set(sent)) == 10


def test_a_connection_that_the_server_cut_is_opened_again(address: str) -> None:
    database = postgres_database(address)
    store = JobStore(database)
    store.accept(draft("job_1"))
    with psycopg.connect(address, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'auricle-jobs'"
        )
    with pytest.raises(StoreUnavailable):
        store.claim()
    job = store.claim()
    assert job is not None and job.id == "job_1"
    database.close()


def test_a_service_keeps_its_jobs_in_postgres(address: str, tmp_path: Path) -> None:
    bundle_dir = make_bundle(tmp_path / "tiny")
    with receiving() as receiver:
        settings = JobSettings(
            folder=tmp_path / "jobs", database=address, outbound_openings=receiver.opening
        )
        assert address not in repr(settings), "it may hold a password"
        with running(bundle_dir, jobs=settings) as (client, _):
            endpoint = client.post("/v1/webhooks", json={"url": receiver.url}).json()
            first = submit(client, key="k", webhook=endpoint["id"])
            assert ended(client, first.json()["id"])["status"] == "done"
            until(lambda: receiver.got)
        assert verified(endpoint["secret"], receiver.got[0])["type"] == "job.done"
        with running(bundle_dir, jobs=settings) as (client, _):
            again = submit(client, key="k", webhook=endpoint["id"])
            assert again.content == first.content
    assert not (tmp_path / "jobs" / "jobs.db").exists()
