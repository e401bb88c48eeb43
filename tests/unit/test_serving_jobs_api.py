"""``/v1/jobs`` as its callers meet it: acceptance, idempotency, progress, results, cancel, erasure."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.runtime import Runtime
from serving.schema import Transcript
from serving.settings import JobSettings
from tests.support_bundle import babble, make_bundle
from tests.support_service import running, wav

SPEECH = wav(babble(1.5))
ROUTE = "/v1/jobs"


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def service(bundle_dir: Path, folder: Path) -> Iterator[tuple[TestClient, Runtime]]:
    objects = folder / "objects"
    objects.mkdir()
    (objects / "speech.wav").write_bytes(SPEECH)
    (folder / "objects-private.wav").write_bytes(SPEECH)
    settings = JobSettings(folder=folder / "store", object_prefixes=(f"file://{objects}",))
    with running(bundle_dir, jobs=settings, max_upload_bytes=4 << 20) as pair:
        yield pair


@pytest.fixture
def client(service: tuple[TestClient, Runtime]) -> TestClient:
    return service[0]


def submit(client: TestClient, content: bytes = SPEECH, *, key: str = "", **fields: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    data = {"model": "tiny", **fields}
    return client.post(ROUTE, data=data, files={"file": ("a.wav", content)}, headers=headers)


def until(what: Callable[[], Any], limit_s: float = 30.0) -> Any:
    """The first true answer."""
    end = time.monotonic() + limit_s
    while not (answer := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return answer


def ended(client: TestClient, job_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"{ROUTE}/{job_id}").json()
        return None if job["status"] in ("queued", "running") else job

    return dict(until(look))


def error_of(response: Any) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


@pytest.fixture
def held(service: tuple[TestClient, Runtime], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The model waits until the test lets it go on."""
    _, runtime = service
    gate, inner = threading.Event(), runtime.recognizer.engine.offline

    def waiting(pieces: Any) -> Any:
        assert gate.wait(30)
        return inner(pieces)

    monkeypatch.setattr(runtime.recognizer.engine, "offline", waiting)
    yield gate
    gate.set()


def test_a_job_gives_the_same_transcript_as_the_direct_route(
    client: TestClient, folder: Path
) -> None:
    answer = submit(client, metadata=json.dumps({"order": "7"}))
    accepted = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{ROUTE}/{accepted['id']}"
    assert (accepted["status"], accepted["object"]) == ("queued", "transcription.job")
    job = ended(client, accepted["id"])
    assert (job["status"], job["progress"], job["attempts"]) == ("done", 1.0, 1)
    assert job["metadata"] == {"order": "7"} and job["error"] is None
    assert job["expires_at"] - job["finished_at"] == 72 * 3600
    form = {"model": "tiny", "response_format": "verbose_json"}
    direct = client.post("/v1/audio/transcriptions", data=form, files={"file": ("a", SPEECH)})
    expected = Transcript.model_validate(direct.json()["auricle"])
    result = f"{ROUTE}/{job['id']}/result"
    transcript = Transcript.model_validate(client.get(result).json())
    assert transcript.text and transcript.words == expected.words
    assert transcript.audio_digest == expected.audio_digest
    assert client.get(result, params={"response_format": "text"}).text == expected.text + "\n"
    assert client.get(result, params={"response_format": "json"}).json()["text"] == expected.text
    asked = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    verbose = client.get(result, params=asked).json()
    assert [word["word"] for word in verbose["words"]] == [w.word for w in expected.words]
    assert " --> " in client.get(result, params={"response_format": "srt"}).text
    assert client.get(result, params={"response_format": "vtt"}).text.startswith("WEBVTT")
    wrong = client.get(result, params={"response_format": "xml"})
    assert wrong.status_code == 400 and error_of(wrong)["param"] == "response_format"
    assert not any((folder / "store" / "blobs").iterdir()), "the audio is not kept"


def test_bad_audio_fails_the_job_and_names_the_file(client: TestClient) -> None:
    job = ended(client, submit(client, b"certainly no audio").json()["id"])
    assert job["status"] == "failed" and job["attempts"] == 1
    assert (job["error"]["code"], job["error"]["param"]) == ("unreadable_audio", "file")
    answer = client.get(f"{ROUTE}/{job['id']}/result")
    assert answer.status_code == 409 and error_of(answer)["code"] == "no_result"


def test_a_repeated_request_gets_the_stored_answer_byte_for_byte(client: TestClient) -> None:
    first = submit(client, key="order-1", metadata='{"a": "1"}')
    ended(client, first.json()["id"])
    again = submit(client, key="order-1", metadata='{"a": "1"}')
    assert again.status_code == 202 and again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    other = submit(client, wav(babble(1.0)), key="order-1", metadata='{"a": "1"}')
    changed = submit(client, key="order-1", metadata='{"a": "2"}')
    for answer in (other, changed):
        assert answer.status_code == 422
        assert error_of(answer)["code"] == "idempotency_key_reused"
    assert submit(client, key="order-2").json()["id"] != first.json()["id"]


def test_a_refused_request_does_not_use_its_key(client: TestClient) -> None:
    assert submit(client, key="mended", model="other").status_code == 404
    assert submit(client, key="mended").status_code == 202


def test_a_request_whose_key_is_in_flight_is_409(client: TestClient) -> None:
    """The database's thread is held, so that the first request is still being accepted."""
    jobs = client.app.routes[0].app._routes.state.jobs  # type: ignore[attr-defined]
    gate, holding, answers = threading.Event(), threading.Event(), []

    def hold(_: object) -> None:
        holding.set()
        gate.wait(30)

    holder = threading.Thread(target=lambda: jobs._database.read(hold))
    first = threading.Thread(target=lambda: answers.append(submit(client, key="twice")))
    holder.start()
    assert holding.wait(30)
    first.start()
    until(lambda: jobs._in_flight)
    second = submit(client, key="twice")
    gate.set()
    for thread in (first, holder):
        thread.join()
    assert second.status_code == 409 and second.headers["retry-after"] == "1"
    assert error_of(second)["code"] == "idempotency_key_in_flight"
    assert answers[0].status_code == 202
    third = submit(client, key="twice")
    assert third.content == answers[0].content and third.headers["idempotent-replayed"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"response_format": "json"}, 400, "response_format"),
        ({"model": "other"}, 404, "model"),
        ({"language": "de"}, 400, "language"),
        ({"metadata": "[1]"}, 400, "metadata"),
        ({"metadata": "no json"}, 400, "metadata"),
        ({"metadata": '{"a": 1}'}, 400, "metadata"),
        ({"webhook": "we_unknown"}, 400, "webhook"),
        ({"url": "https://example.com/a.wav"}, 400, "url"),
        ({"model": ["tiny", "tiny"]}, 400, "model"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: TestClient, folder: Path, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = submit(client, **fields)
    assert answer.status_code == status
    assert error_of(answer)["param"] == param
    left = [path for path in (folder / "store" / "blobs").iterdir()]
    assert not left, "a refused request leaves no audio"


def test_urls_are_closed_by_default(client: TestClient) -> None:
    body = {"model": "tiny", "url": "https://example.com/a.wav"}
    answer = client.post(ROUTE, json=body)
    assert answer.status_code == 400 and error_of(answer)["code"] == "url_not_allowed"
    nothing = client.post(ROUTE, json={"model": "tiny"})
    assert nothing.status_code == 400 and error_of(nothing)["param"] == "file"
    broken = client.post(ROUTE, content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 400 and error_of(broken)["code"] == "invalid_body"


def test_an_object_is_read_below_the_operators_prefix_only(
    client: TestClient, folder: Path
) -> None:
    inside = f"file://{folder}/objects/speech.wav"
    answer = client.post(ROUTE, json={"model": "tiny", "object": inside})
    assert answer.status_code == 202
    assert ended(client, answer.json()["id"])["status"] == "done"
    gone = client.post(ROUTE, json={"model": "tiny", "object": inside + ".gone"})
    failed = ended(client, gone.json()["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "object_unreachable")
    for reference in (
        f"file://{folder}/objects-private.wav",
        f"file://{folder}/objects/../objects-private.wav",
        "s3://elsewhere/a.wav",
    ):
        refused = client.post(ROUTE, json={"model": "tiny", "object": reference})
        assert refused.status_code == 400, reference
        assert error_of(refused)["code"] == "object_not_allowed"


def test_pages_list_newest_first(client: TestClient) -> None:
    made = [submit(client).json()["id"] for _ in range(3)]
    first = client.get(ROUTE, params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == [made[2], made[1]] and first["has_more"]
    second = client.get(ROUTE, params={"limit": 1, "after": first["last_id"]}).json()
    assert [job["id"] for job in second["data"]] == [made[0]]
    for query, param in (
        ({"limit": "0"}, "limit"), ({"status": "lost"}, "status"), ({"after": "job_x"}, "after"),
        ({"order": "asc"}, "order"),
    ):  # fmt: skip
        answer = client.get(ROUTE, params=query)
        assert answer.status_code == 400 and error_of(answer)["param"] == param
    for job_id in made:
        ended(client, job_id)
    done = client.get(ROUTE, params={"status": "done", "limit": 100}).json()["data"]
    assert set(made) <= {job["id"] for job in done}


def test_a_cancelled_job_stops_and_stays_cancelled(
    client: TestClient, held: threading.Event, folder: Path
) -> None:
    job_id = submit(client).json()["id"]
    until(lambda: client.get(f"{ROUTE}/{job_id}").json()["status"] == "running")
    waiting = client.get(f"{ROUTE}/{job_id}/result")
    assert waiting.status_code == 409 and error_of(waiting)["code"] == "job_not_finished"
    answer = client.post(f"{ROUTE}/{job_id}/cancel")
    assert answer.status_code == 200 and answer.json()["status"] == "cancelled"
    held.set()
    assert client.post(f"{ROUTE}/{job_id}/cancel").json()["status"] == "cancelled"
    done = ended(client, submit(client).json()["id"])
    assert client.get(f"{ROUTE}/{job_id}").json()["status"] == "cancelled"
    late = client.post(f"{ROUTE}/{done['id']}/cancel")
    assert late.status_code == 409 and error_of(late)["code"] == "job_ended"
    assert not any((folder / "store" / "blobs").iterdir())


def test_events_tell_progress_and_end_with_the_job(
    client: TestClient, held: threading.Event
) -> None:
    job_id = submit(client, wav(babble(65.0))).json()["id"]
    threading.Timer(0.2, held.set).start()
    answer = client.get(f"{ROUTE}/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if "data: " in block]
    names = [block[0].removeprefix("event: ") for block in blocks]
    told = [json.loads(block[2].removeprefix("data: ")) for block in blocks]
    assert names[-1] == "done" and set(names[:-1]) == {"progress"}
    assert told[-1]["progress"] == 1.0 and told[-1]["status"] == "done"
    revisions = [int(block[1].removeprefix("id: ")) for block in blocks]
    assert revisions == sorted(set(revisions))
    seen = {"Last-Event-ID": str(revisions[-1])}
    assert client.get(f"{ROUTE}/{job_id}/events", headers=seen).status_code == 204


def test_an_erased_job_leaves_nothing(
    client: TestClient, held: threading.Event, folder: Path
) -> None:
    job_id = submit(client, key="erase-me", metadata='{"who": "nobody-else-says-this"}').json()[
        "id"
    ]
    until(lambda: client.get(f"{ROUTE}/{job_id}").json()["status"] == "running")
    answer = client.delete(f"{ROUTE}/{job_id}")
    assert answer.json() == {"id": job_id, "object": "transcription.job", "deleted": True}
    held.set()
    for path in ("", "/result", "/events"):
        gone = client.get(f"{ROUTE}/{job_id}{path}")
        assert gone.status_code == 404 and error_of(gone)["code"] == "job_not_found"
    ended(client, submit(client).json()["id"])  # the worker has let go of the erased one
    kept = b"".join(p.read_bytes() for p in (folder / "store").rglob("*") if p.is_file())
    assert b"nobody-else-says-this" not in kept and job_id.encode() not in kept
    assert client.delete(f"{ROUTE}/{job_id}").status_code == 404


def test_a_model_that_fails_is_tried_again_and_then_given_up(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.jobs.worker._RETRY_S", (0.0,))
    settings = JobSettings(folder=tmp_path, max_attempts=2, lease_s=3.0)
    with running(bundle_dir, jobs=settings) as (client, runtime):

        def fail(pieces: object) -> Any:
            raise RuntimeError("secret words")

        monkeypatch.setattr(runtime.recognizer.engine, "offline", fail)
        job = ended(client, submit(client).json()["id"])
        assert (job["status"], job["attempts"]) == ("failed", 2)
        assert job["error"]["type"] == "server_error" and "secret" not in json.dumps(job)
        page = client.get("/metrics").text
        assert 'auricle_jobs_total{outcome="failed"} 1.0' in page


def test_tenants_and_keys_without_the_scope_see_nothing_of_it(
    service: tuple[TestClient, Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.tenants.caller import Caller

    client, _ = service
    job_id = ended(client, submit(client, key="mine").json()["id"])["id"]
    target = "serving.api.jobs_api.caller_of"
    monkeypatch.setattr(target, lambda _: Caller(tenant="other", key_id="k"))
    for call in (client.get, client.delete):
        assert call(f"{ROUTE}/{job_id}").status_code == 404
    for path in ("/result", "/events"):
        assert client.get(f"{ROUTE}/{job_id}{path}").status_code == 404
    assert client.post(f"{ROUTE}/{job_id}/cancel").status_code == 404
    assert client.get(ROUTE).json()["data"] == []
    assert submit(client, key="mine").json()["id"] != job_id
    monkeypatch.setattr(target, lambda _: Caller(scopes=frozenset({"transcribe"})))
    answer = client.get(ROUTE)
    assert answer.status_code == 403 and error_of(answer)["code"] == "insufficient_scope"


def test_too_many_unfinished_jobs_are_429_and_a_restart_goes_on(
    bundle_dir: Path, tmp_path: Path
) -> None:
    """Without runners jobs only wait; the next process runs them."""
    waiting = JobSettings(folder=tmp_path, runners=0, max_open_jobs=2)
    with running(bundle_dir, jobs=waiting) as (client, _):
        made = [submit(client).json()["id"] for _ in range(2)]
        answer = submit(client, key="later")
        assert answer.status_code == 429 and answer.headers["retry-after"] == "5"
        assert error_of(answer)["code"] == "too_many_jobs"
    with running(bundle_dir, jobs=JobSettings(folder=tmp_path)) as (client, _):
        assert all(ended(client, job_id)["status"] == "done" for job_id in made)
        assert submit(client, key="later").status_code == 202


def test_a_store_that_another_holds_is_503_and_comes_back(bundle_dir: Path, tmp_path: Path) -> None:
    with running(bundle_dir, jobs=JobSettings(folder=tmp_path)) as (client, _):
        jobs = client.app.routes[0].app._routes.state.jobs  # type: ignore[attr-defined]
        jobs._database.read(lambda session: session.rows("PRAGMA busy_timeout=1"))
        holder = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        answer = submit(client, key="held")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
        assert error_of(answer)["code"] == "job_store"
        holder.execute("ROLLBACK")
        holder.close()
        assert ended(client, submit(client, key="held").json()["id"])["status"] == "done"
        assert len(client.get(ROUTE).json()["data"]) == 1


def test_a_service_without_a_folder_says_how_to_give_it_one(bundle_dir: Path) -> None:
    with running(bundle_dir) as (client, _):
        answer = submit(client)
        assert answer.status_code == 404 and error_of(answer)["code"] == "jobs_disabled"


def test_a_stopping_service_gives_its_jobs_back_uncounted(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    with running(bundle_dir, jobs=JobSettings(folder=tmp_path)) as (client, runtime):
        inner = runtime.recognizer.engine.offline
        monkeypatch.setattr(
            runtime.recognizer.engine, "offline", lambda pieces: gate.wait(5) and inner(pieces)
        )
        job_id = submit(client).json()["id"]
        until(lambda: client.get(f"{ROUTE}/{job_id}").json()["status"] == "running")
        client.portal.call(runtime.draining.set)  # type: ignore[union-attr]
        refused = submit(client)
        assert refused.status_code == 503 and error_of(refused)["code"] == "draining"
        threading.Timer(2.0, gate.set).start()
    with running(bundle_dir, jobs=JobSettings(folder=tmp_path)) as (client, _):
        job = ended(client, job_id)
        assert (job["status"], job["attempts"]) == ("done", 1)
