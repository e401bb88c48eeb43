"""The door before the body: who is refused hears of it unread, others are served in turn."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import openai
import pytest

from serving.admission.cost import CostModel
from serving.admission.policy import AdmissionPolicy, NoRoom, Outcome, Priority, Rules, State
from serving.admission.turnstile import Turnstile
from serving.problems import ApiProblem
from tests.support_bundle import babble, make_bundle
from tests.support_live import served
from tests.support_service import running, wav

LONG_BYTES = 50 << 20


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def full(bundle_dir: Path) -> Iterator[str]:
    """A service without a free place."""
    with served(bundle_dir, max_waiting_requests=0) as (url, _):
        yield url


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.wav"
    with path.open("wb") as sink:
        sink.truncate(LONG_BYTES)
    return path


def curl(url: str, path: Path, *options: str) -> list[str]:
    """Status, bytes sent, Retry-After, body."""
    answer = subprocess.run(
        ["curl", "-s", "-S", *options, "-F", f"file=@{path}", "-F", "model=tiny",
         "-w", "\n%{http_code} %{size_upload} %header{retry-after} %header{connection}",
         f"{url}/v1/audio/transcriptions"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    body, _, facts = answer.stdout.rpartition("\n")
    return [*facts.split(), body]


def test_curl_that_asks_first_sends_nothing_of_50_megabytes(full: str, long_file: Path) -> None:
    status, sent, retry_after, connection, body = curl(
        full, long_file, "-H", "Expect: 100-continue", "--expect100-timeout", "30"
    )
    assert (status, sent, connection) == ("429", "0", "close")
    assert int(retry_after) >= 1 and '"code":"overloaded"' in body


def test_curl_that_sends_at_once_still_sees_the_refusal(full: str, long_file: Path) -> None:
    status, _, retry_after, _, body = curl(full, long_file, "-H", "Expect:")
    assert status == "429" and int(retry_after) >= 1 and '"code":"overloaded"' in body


def test_the_openai_client_sees_the_refusal_of_a_long_upload(full: str, long_file: Path) -> None:
    with closing(openai.OpenAI(base_url=f"{full}/v1", api_key="-", max_retries=0)) as client:
        for _ in range(3):
            with long_file.open("rb") as sound, pytest.raises(openai.RateLimitError) as refused:
                client.audio.transcriptions.create(file=sound, model="tiny")
            assert refused.value.code == "overloaded"
            headers = refused.value.response.headers
            assert int(headers["retry-after"]) >= 1 and int(headers["retry-after-ms"]) >= 1


def test_a_short_refused_upload_keeps_its_connection(full: str, tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    path.write_bytes(wav(babble(0.5)))
    status, *_, connection, _ = [*curl(full, path)[:3], "", ""]
    assert status == "429" and connection == ""


def test_the_openai_client_comes_back_when_told_and_is_served(bundle_dir: Path) -> None:
    content = wav(babble(1.0))
    with served(bundle_dir, max_waiting_requests=1) as (url, runtime):
        place = runtime.entrance.policy.arrive("somebody", Priority.INTERACTIVE, 0.1)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=3)
        seen: list[int] = []

        def note(response: object) -> None:
            seen.append(response.status_code)  # type: ignore[attr-defined]
            runtime.entrance.policy.finish(place)

        client._client.event_hooks["response"].append(note)
        with closing(client):
            answer = client.audio.transcriptions.create(file=("a.wav", content), model="tiny")
        assert answer.text is not None and seen == [429, 200]


def test_what_is_let_in_is_learnt_from_and_leaves_nothing_behind(bundle_dir: Path) -> None:
    with running(bundle_dir) as (client, runtime):
        before = runtime.entrance.turnstile.costs.of_body("default", 64_000)
        for _ in range(3):
            answer = client.post(
                "/v1/audio/transcriptions",
                files={"file": ("a.wav", wav(babble(2.0)))},
                data={"model": "tiny"},
            )
            assert answer.status_code == 200
        bad = client.post(
            "/v1/audio/transcriptions", files={"file": ("a.wav", b"no")}, data={"model": "tiny"}
        )
        assert bad.status_code == 400
        assert runtime.entrance.files == 0
        assert runtime.entrance.turnstile.costs.of_body("default", 64_000) != before
        page = client.get("/metrics").text
        assert "auricle_admission_limit_seconds" in page


def test_a_refusal_at_the_door_is_counted(bundle_dir: Path) -> None:
    with running(bundle_dir, max_waiting_requests=0) as (client, _):
        answer = client.post("/v1/audio/transcriptions", content=b"not even a form")
        assert answer.status_code == 429
        assert 'auricle_refused_total{code="overloaded"} 1.0' in client.get("/metrics").text


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Scene:
    """A turnstile whose limit is one request of a second."""

    def __init__(self) -> None:
        rules = Rules(max_wait_s=100.0, footprint_s=1.0)
        self.policy = AdmissionPolicy(rules, clock=lambda: 0.0)
        self.policy.limit.seconds = 1.0
        self.turnstile = Turnstile(self.policy, CostModel(), patience_s=0.05)

    async def hold(self, tenant: str, done: asyncio.Event, order: list[str]) -> None:
        with self.turnstile.door(tenant, content_length=2_000_000) as visit:
            await visit.turn()
            order.append(tenant)
            await done.wait()
            visit.answered(Outcome(waited_s=0, worked_s=1), audio_s=60.0, work_s=1.2)


def test_turns_go_round_and_an_abandoned_place_goes_to_the_next() -> None:
    async def scene() -> None:
        place, order, done = Scene(), list[str](), asyncio.Event()
        place.turnstile._patience_s = 10.0
        tasks = [
            asyncio.ensure_future(place.hold(name, done, order)) for name in ("a", "a", "a", "b")
        ]
        await settled()
        assert order == ["a"]
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.gather(tasks[0], tasks[1], return_exceptions=True)
        done.set()
        await asyncio.gather(tasks[2], tasks[3])
        assert sorted(order) == ["a", "a", "b"] and order[1] in ("a", "b")
        assert place.policy.open == 0

    asyncio.run(scene())


def test_whoever_waits_too_long_is_told_so_and_holds_no_place() -> None:
    async def scene() -> None:
        place, order, done = Scene(), list[str](), asyncio.Event()
        first = asyncio.ensure_future(place.hold("a", done, order))
        await settled()
        with pytest.raises(NoRoom) as refused:
            await place.hold("b", done, order)
        assert refused.value.retry_after_s >= 0
        assert place.policy.waiting == 0
        done.set()
        await first

    asyncio.run(scene())


def test_a_visit_from_the_door_is_used_once_and_later_work_has_its_own() -> None:
    async def scene() -> None:
        turnstile = Scene().turnstile
        with turnstile.door("a", content_length=10) as outer:
            assert turnstile.let_in
            with turnstile.visit("other", Priority.BATCH) as inner:
                assert inner is outer
                await inner.turn()
            assert outer.entry.state is State.RUNNING and not turnstile.let_in
            with turnstile.visit("other", Priority.BATCH) as second:
                assert second is not outer and second.entry.tenant == "other"
        assert turnstile.policy.open == 0

    asyncio.run(scene())


def test_new_files_are_refused_while_the_process_stops(bundle_dir: Path) -> None:
    with running(bundle_dir) as (client, runtime):
        runtime.draining.set()
        answer = client.post("/v1/audio/transcriptions", content=b"")
        assert answer.status_code == 503 and answer.headers["retry-after"]
        with pytest.raises(ApiProblem), runtime.door("a", None):
            pass
