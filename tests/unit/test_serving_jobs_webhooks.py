"""Webhooks to a real receiver: signatures, frozen bodies, retries, dead letters, redelivery."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from starlette.testclient import TestClient

from serving.delivery.dispatcher import Backoff, retry_after_s
from serving.delivery.outbound import Answer
from serving.schema import Transcript
from serving.settings import JobSettings
from tests.support_bundle import babble, make_bundle
from tests.support_receiver import Delivery, Receiver, receiving
from tests.support_service import running, wav
from tests.unit.test_serving_jobs_api import ended, error_of, submit, until

ROUTE = "/v1/webhooks"


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@contextmanager
def serving(
    bundle_dir: Path, folder: Path, receiver: Receiver, **choices: Any
) -> Iterator[TestClient]:
    settings = JobSettings(
        folder=folder,
        outbound_openings=receiver.opening,
        **{"webhook_backoff_s": 0.001, "webhook_attempts": 4, **choices},
    )
    with running(bundle_dir, jobs=settings) as (client, _):
        yield client


@pytest.fixture
def client(bundle_dir: Path, tmp_path: Path, receiver: Receiver) -> Iterator[TestClient]:
    with serving(bundle_dir, tmp_path, receiver) as client:
        yield client


def register(client: TestClient, receiver: Receiver) -> dict[str, Any]:
    answer = client.post(ROUTE, json={"url": receiver.url})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def messages(client: TestClient, status: str) -> list[dict[str, Any]]:
    return list(client.get(f"{ROUTE}/messages", params={"status": status}).json()["data"])


def verified(secret: str, delivery: Delivery) -> dict[str, Any]:
    """As a receiver does it, with the library of Standard Webhooks."""
    return dict(Webhook(secret).verify(delivery.body, delivery.headers))


def test_a_finished_job_is_told_signed_and_whole(client: TestClient, receiver: Receiver) -> None:
    endpoint = register(client, receiver)
    job_id = submit(client, webhook=endpoint["id"], metadata='{"order": "7"}').json()["id"]
    (message,) = until(lambda: messages(client, "delivered"))
    (delivery,) = receiver.got
    event = verified(endpoint["secret"], delivery)
    assert event["type"] == "job.done" and delivery.path == "/hook"
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert event["data"]["job"] == job and job["metadata"] == {"order": "7"}
    result = client.get(f"/v1/jobs/{job_id}/result").json()
    assert event["data"]["transcript"] == result and Transcript.model_validate(result).text
    assert delivery.headers["webhook-id"] == message["id"]
    assert (message["job"], message["attempts"], message["last_status"]) == (job_id, 1, 200)
    assert delivery.headers["content-type"] == "application/json"
    listing = client.get(ROUTE).json()["data"]
    assert [entry["id"] for entry in listing] == [endpoint["id"]]
    assert (
        "secret" not in listing[0]
        and "secret" not in client.get(f"{ROUTE}/{endpoint['id']}").json()
    )


def test_every_end_of_a_job_is_told(client: TestClient, receiver: Receiver) -> None:
    endpoint = register(client, receiver)
    submit(client, b"no audio at all", webhook=endpoint["id"])
    until(lambda: receiver.got)
    job = submit(client, wav(babble(60.0)), webhook=endpoint["id"]).json()
    cancelled = client.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    until(lambda: len(receiver.got) == 2)
    kinds = [verified(endpoint["secret"], delivery)["type"] for delivery in receiver.got]
    assert kinds == ["job.failed", "job.cancelled" if cancelled else "job.done"]
    failed = json.loads(receiver.got[0].body)["data"]
    assert failed["transcript"] is None and failed["job"]["error"]["param"] == "file"


@pytest.mark.parametrize("status", [500, 302, 404, 429, -1])
def test_an_attempt_that_fails_comes_again_with_the_same_bytes(
    client: TestClient, receiver: Receiver, status: int
) -> None:
    """A redirect is such a failure: nothing follows it."""
    receiver.answer = lambda count: (status, {"Location": "/elsewhere"}) if count < 3 else (204, {})
    receiver.content = b""
    endpoint = register(client, receiver)
    submit(client, webhook=endpoint["id"])
    (message,) = until(lambda: messages(client, "delivered"))
    assert message["attempts"] == 3 and len(receiver.got) == 3
    assert {delivery.body for delivery in receiver.got} == {receiver.got[0].body}
    assert {delivery.headers["webhook-id"] for delivery in receiver.got} == {message["id"]}
    assert {delivery.path for delivery in receiver.got} == {"/hook"}
    for delivery in receiver.got:
        verified(endpoint["secret"], delivery)


def test_a_dead_letter_is_kept_and_can_be_sent_again(
    client: TestClient, receiver: Receiver
) -> None:
    receiver.answer = lambda count: (500, {})
    endpoint = register(client, receiver)
    submit(client, webhook=endpoint["id"])
    (dead,) = until(lambda: messages(client, "dead"))
    assert dead["attempts"] == 4 and dead["last_status"] == 500
    assert "500" in dead["last_error"] and dead["next_attempt_at"] is None
    receiver.answer = lambda count: (200, {})
    answer = client.post(f"{ROUTE}/messages/{dead['id']}/redeliver")
    assert answer.status_code == 202 and answer.json()["status"] == "pending"
    until(lambda: messages(client, "delivered"))
    assert len({delivery.body for delivery in receiver.got}) == 1
    assert len({delivery.headers["webhook-id"] for delivery in receiver.got}) == 1
    verified(endpoint["secret"], receiver.got[-1])
    again = client.post(f"{ROUTE}/messages/{dead['id']}/redeliver")  # a delivered one, too
    assert again.status_code == 202
    until(lambda: len(receiver.got) == 6)
    assert receiver.got[5].body == receiver.got[0].body
    assert client.post(f"{ROUTE}/messages/msg_x/redeliver").status_code == 404


def test_410_disables_the_endpoint_until_it_is_enabled(
    client: TestClient, receiver: Receiver
) -> None:
    receiver.answer = lambda count: (410, {})
    endpoint = register(client, receiver)
    first = submit(client, webhook=endpoint["id"])
    assert first.status_code == 202
    until(lambda: messages(client, "dead"))
    shown = client.get(f"{ROUTE}/{endpoint['id']}").json()
    assert shown["enabled"] is False and "410" in shown["disabled_reason"]
    refused = submit(client, webhook=endpoint["id"])
    assert refused.status_code == 400 and error_of(refused)["param"] == "webhook"
    receiver.answer = lambda count: (200, {})
    assert client.post(f"{ROUTE}/{endpoint['id']}/enable").json()["enabled"] is True
    assert submit(client, webhook=endpoint["id"]).status_code == 202
    until(lambda: messages(client, "delivered"))


def test_a_rotated_secret_signs_beside_the_old_one(client: TestClient, receiver: Receiver) -> None:
    endpoint = register(client, receiver)
    rotated = client.post(f"{ROUTE}/{endpoint['id']}/rotate").json()
    assert rotated["secret"] != endpoint["secret"]
    submit(client, webhook=endpoint["id"])
    until(lambda: receiver.got)
    for secret in (endpoint["secret"], rotated["secret"]):
        assert verified(secret, receiver.got[0])["type"] == "job.done"
    with pytest.raises(Exception, match="signature"):
        verified("whsec_" + "A" * 44, receiver.got[0])


def test_a_deleted_endpoint_and_its_messages_are_gone(
    client: TestClient, receiver: Receiver
) -> None:
    receiver.answer = lambda count: (500, {})
    endpoint = register(client, receiver)
    submit(client, webhook=endpoint["id"])
    until(lambda: messages(client, "dead"))
    path = f"{ROUTE}/{endpoint['id']}"
    assert client.delete(path).json()["deleted"] is True
    for answer in (client.get(path), client.delete(path), client.post(path + "/enable"),
                   client.post(path + "/rotate")):  # fmt: skip
        assert answer.status_code == 404 and error_of(answer)["code"] == "not_found"
    assert messages(client, "dead") == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://example.com:8443/hook",
        "https://user:pass@example.com/",
        "https://example.com@10.0.0.1/",
        "ftp://example.com/",
        "https://exa\u0301mple.com/",
        "https://example.com/#part",
        "https://example.com./",
        "https://exam ple.com/",
        "https:///nohost",
        "https://[fe80::1%25eth0]/",
        "https://example.com\\@10.0.0.1/",
        "",
        None,
        7,
    ],
)
def test_a_url_that_is_odd_is_refused_at_registration(client: TestClient, url: Any) -> None:
    answer = client.post(ROUTE, json={"url": url})
    assert answer.status_code == 400 and error_of(answer)["param"] == "url"
    assert client.get(ROUTE).json()["data"] == []


def test_a_receiver_inside_the_network_is_never_called(
    bundle_dir: Path, tmp_path: Path, receiver: Receiver
) -> None:
    """Registered as a name; what the name stands for is judged at each attempt."""
    with receiving() as inner:
        settings = JobSettings(
            folder=tmp_path,
            outbound_openings=receiver.opening,
            webhook_attempts=1,
        )
        with running(bundle_dir, jobs=settings) as (client, _):
            answer = client.post(ROUTE, json={"url": "https://localhost/hook"})
            endpoint = answer.json()["id"]
            submit(client, webhook=endpoint)
            (dead,) = until(lambda: messages(client, "dead"))
            assert "may reach" in dead["last_error"] and dead["last_status"] is None
            closed = client.post(ROUTE, json={"url": inner.url})
            assert closed.status_code == 400
        assert not inner.got and not receiver.got


def test_a_jobs_webhook_survives_a_restart_between_its_end_and_its_sending(
    bundle_dir: Path, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answer = lambda count: (503, {"Retry-After": "3600"}) if count == 1 else (200, {})
    with serving(bundle_dir, tmp_path, receiver) as client:
        endpoint = register(client, receiver)
        submit(client, webhook=endpoint["id"])
        (pending,) = until(
            lambda: [m for m in messages(client, "pending") if m["last_status"] == 503]
        )
        assert pending["next_attempt_at"] > pending["created_at"] + 3000
    with serving(bundle_dir, tmp_path, receiver) as client:
        client.post(f"{ROUTE}/messages/{pending['id']}/redeliver")
        until(lambda: messages(client, "delivered"))
    assert receiver.got[0].body == receiver.got[1].body
    verified(endpoint["secret"], receiver.got[1])


def test_an_erased_job_is_not_told_of(client: TestClient, receiver: Receiver) -> None:
    receiver.answer = lambda count: (500, {"Retry-After": "3600"})
    endpoint = register(client, receiver)
    job_id = ended(client, submit(client, webhook=endpoint["id"]).json()["id"])["id"]
    (message,) = until(lambda: [m for m in messages(client, "pending") if m["last_status"]])
    client.delete(f"/v1/jobs/{job_id}")
    assert client.post(f"{ROUTE}/messages/{message['id']}/redeliver").status_code == 404


def test_the_log_holds_no_word_url_or_secret(
    client: TestClient, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    from serving import logs

    logger = logging.getLogger(logs.LOGGER_NAME)
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        endpoint = register(client, receiver)
        submit(client, webhook=endpoint["id"])
        until(lambda: messages(client, "delivered"))
    finally:
        logger.removeHandler(caplog.handler)
    words = json.loads(receiver.got[0].body)["data"]["transcript"]["text"].split()
    told = [str(record.__dict__) for record in caplog.records]
    assert any("webhook" in line for line in told)
    for secret in (endpoint["secret"], receiver.url, *(word for word in words if len(word) > 5)):
        assert not any(re.search(re.escape(secret), line) for line in told)


def test_delays_double_with_full_jitter_up_to_a_limit() -> None:
    backoff = Backoff(first_s=5.0, longest_s=100.0)
    ceilings = [backoff.delay_s(attempt, 1.0, None) for attempt in range(1, 8)]
    assert ceilings == [5.0, 10.0, 20.0, 40.0, 80.0, 100.0, 100.0]
    assert backoff.delay_s(3, 0.0, None) == 0.0 and backoff.delay_s(3, 0.25, None) == 5.0
    assert backoff.delay_s(3, 0.0, 30.0) == 30.0 and backoff.delay_s(3, 0.0, 1e9) == 100.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("", None), ("soon", None), ("-3", None),
     ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0), ("Thu, 01 Jan 1970 00:00:05 GMT", 0.0)],
)  # fmt: skip
def test_retry_after_is_read_as_number_or_date(text: str, seconds: float | None) -> None:
    answer = Answer(status=503, headers={"retry-after": text})
    assert retry_after_s(answer, 10.0) == seconds
