"""Redaction where people meet it: OpenAI's answers, events, live streams, tenants' rules; and that no
log, metric or record holds what was said."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from benchmarks._pii import Line, leaks, read_line, read_suite
from serving import assemble, logs
from serving.redaction.policy import parse_policy
from serving.redaction.streams import StreamRedactor
from serving.redaction.transcripts import redact_transcript
from serving.runtime import Runtime
from serving.schema import Transcript
from serving.settings import JobSettings, ProtectionSettings
from serving.streaming.events import Event, StreamEvent, UtteranceEnd
from serving.streaming.redacted import RedactedSession
from serving.tenants.access import access_ledger
from serving.tenants.policy import TenantPolicy
from serving.tenants.store import KeyStore
from tests.support_bundle import babble, hush, make_bundle
from tests.support_service import pcm16, running, wav

ROUTE = "/v1/audio/transcriptions"
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000&interim_results=true"
CARD = "my card is {card:four one one one one one one one one one one one one one one one} thanks"
SAID = read_line(CARD)
PII = parse_policy(["pii"])


@dataclass(frozen=True, kw_only=True, repr=False)
class Service:
    client: TestClient
    runtime: Runtime
    store: KeyStore
    folder: Path

    def key(self, *scopes: str, tenant: str = "plain") -> dict[str, str]:
        key = self.store.create(tenant, ("transcribe", "listen", *scopes)).text
        return {"Authorization": f"Bearer {key}"}

    def post(self, headers: dict[str, str], **fields: Any) -> Any:
        files = {"file": ("a.wav", wav(babble(1.0)), "audio/wav")}
        data = {"model": "tiny", **fields}
        return self.client.post(ROUTE, data=data, files=files, headers=headers)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("tenants")
    store = KeyStore(folder / "keys.sqlite", create=True)
    store.set_tenant("careful", TenantPolicy(redact="pci"))
    bundle_dir = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    protection = ProtectionSettings(keys_path=folder / "keys.sqlite")
    jobs = JobSettings(folder=tmp_path_factory.mktemp("jobs"))
    with running(bundle_dir, protection=protection, jobs=jobs) as (client, runtime):
        yield Service(client=client, runtime=runtime, store=store, folder=folder)


@pytest.fixture
def says(service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the recogniser hears from now on, instead of the tiny bundle's noise."""
    real = service.runtime.recognizer.transcript

    def hear(line: Line) -> None:
        words = tuple(
            word.model_copy(update={"start": round(0.3 * at, 1), "end": round(0.3 * at + 0.2, 1)})
            for at, word in enumerate(line.timed())
        )

        def transcript(*args: Any, **options: Any) -> Transcript:
            heard = real(*args, **options)
            changed = {"words": words, "segments": assemble.segments(words),
                       "text": assemble.joined(words)}  # fmt: skip
            return heard.model_copy(update=changed)

        monkeypatch.setattr(service.runtime.recognizer, "transcript", transcript)

    return hear


@pytest.mark.parametrize("asked", ["pci", "ssn,pci", ["ssn", "credit_card"]])
def test_each_way_of_asking(service: Service, says: Any, asked: Any) -> None:
    says(SAID)
    for name in ("redact", "redact[]"):
        answer = service.post(service.key(), **{name: asked})
        assert answer.json()["text"] == "my card is [CARD] thanks"


def test_every_format_is_redacted(service: Service, says: Any) -> None:
    says(SAID)
    headers = service.key()
    asked = {"redact": "pci", "timestamp_granularities[]": ["word", "segment"]}
    verbose = service.post(headers, response_format="verbose_json", **asked).json()
    assert verbose["text"] == "my card is [CARD] thanks"
    assert [word["word"] for word in verbose["words"]][3] == "[CARD]"
    assert " ".join(segment["text"] for segment in verbose["segments"]) == verbose["text"]
    whole = Transcript.model_validate(verbose["auricle"])
    (span,) = whole.redactions
    assert (span.kind, span.start, span.end) == ("card", 0.9, 5.6)
    assert "auricle_unredacted" not in verbose and "four" not in json.dumps(verbose)
    for response_format in ("text", "srt", "vtt", "json"):
        shown = service.post(headers, response_format=response_format, redact="pci").text
        assert "[CARD]" in shown and "four" not in shown
    removed = service.post(headers, redact="pci", redact_mode="remove")
    assert removed.json()["text"] == "my card is thanks"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"redact": "shoe_size"}, "redact"),
        ({"redact": "pci", "redact_mode": "hide"}, "redact_mode"),
        ({"redact": "pci", "include[]": "logprobs"}, "include[]"),
        ({"redact_mode": "both"}, "redact_mode"),
    ],
)
def test_what_cannot_be_redacted_is_refused(
    service: Service, fields: dict[str, str], param: str
) -> None:
    answer = service.post(service.key("unredacted"), **fields)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def test_a_tenants_rule_holds_for_every_request(service: Service, says: Any) -> None:
    says(read_line(f"{CARD} call {{phone:five five five oh one nine nine}} now"))
    bound = service.key(tenant="careful")
    assert service.post(bound).json()["text"].startswith("my card is [CARD] thanks call five")
    more = service.post(bound, redact="phone").json()["text"]
    assert more == "my card is [CARD] thanks call [PHONE] now"
    less = service.post(bound, redact="false")
    assert less.status_code == 403 and less.json()["error"]["code"] == "insufficient_scope"
    both = service.post(bound, redact_mode="both", response_format="verbose_json")
    assert both.status_code == 403


def test_who_may_see_more_sees_it_and_that_is_on_record(service: Service, says: Any) -> None:
    says(SAID)
    trusted = service.key("unredacted", tenant="careful")
    assert "[CARD]" in service.post(trusted).json()["text"]  # the rule, while nothing else is asked
    assert service.post(trusted, redact="false").json()["text"] == " ".join(SAID.words)
    both = service.post(trusted, redact_mode="both", response_format="verbose_json").json()
    assert "[CARD]" in both["text"]
    assert both["auricle_unredacted"]["text"] == " ".join(SAID.words)
    key_id = trusted["Authorization"].split("_")[1]
    kinds: list[str] = []
    for _ in range(200):
        events = access_ledger(service.folder).events()
        kinds = [event.kind for event in events if event.actor == key_id]
        if len(kinds) == 5:
            break
    assert kinds == ["access", "access", "unredacted", "access", "unredacted"]


def done(service: Service, headers: dict[str, str], **fields: str) -> Any:
    """Submit a job and wait for its transcript."""
    files, data = {"file": ("a.wav", wav(babble(1.0)))}, {"model": "tiny", **fields}
    accepted = service.client.post("/v1/jobs", data=data, files=files, headers=headers)
    assert accepted.status_code == 202, accepted.text
    address = f"/v1/jobs/{accepted.json()['id']}/result"
    end = time.monotonic() + 60
    while (result := service.client.get(address, headers=headers)).status_code == 409:
        assert time.monotonic() < end
    return result


def test_a_job_stores_what_its_tenant_may_see(service: Service, says: Any) -> None:
    says(SAID)
    bound = service.key("jobs", tenant="careful")
    result = done(service, bound)
    assert result.json()["text"] == "my card is [CARD] thanks"
    assert result.json()["redactions"][0]["kind"] == "card"
    assert done(service, service.key("jobs"), redact="pci", redact_mode="remove").json()[
        "text"
    ] == ("my card is thanks")
    trusted = service.key("jobs", "unredacted", tenant="careful")
    clear = done(service, trusted, redact="false")
    assert clear.json()["text"] == " ".join(SAID.words)
    again = service.client.get(clear.request.url.path, headers=bound)  # another key of the tenant
    assert again.json()["text"] == "my card is [CARD] thanks"
    files, data = {"file": ("a.wav", wav(babble(1.0)))}, {"model": "tiny", "redact": "false"}
    refused = service.client.post("/v1/jobs", data=data, files=files, headers=bound)
    assert refused.status_code == 403
    usage = service.client.get("/v1/usage", headers=bound).json()["data"]
    assert sum(row["audio_seconds"] for row in usage if row["route"] == "jobs") == 2.0


def test_a_recordings_events_carry_stable_redacted_words(service: Service) -> None:
    headers, kinds = service.key(), "spelled,numbers,name"
    clear = service.post(headers, response_format="verbose_json").json()
    whole = Transcript.model_validate(clear["auricle"])
    expected = redact_transcript(whole, parse_policy([kinds]))
    answer = service.post(headers, stream="true", redact=kinds)
    events = [
        json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")
    ]
    deltas = [e["delta"] for e in events if e["type"] == "transcript.text.delta"]
    assert "".join(deltas) == events[-1]["text"] == expected.text


def stream_events(service: Service, headers: dict[str, str], query: str) -> list[dict[str, Any]]:
    pcm = (
        pcm16(babble(2.0)).tobytes()
        + pcm16(hush(1.5)).tobytes()
        + pcm16(babble(1.5, seed=5)).tobytes()
    )
    messages: list[dict[str, Any]] = []
    with service.client.websocket_connect(LISTEN + query, headers=headers) as socket:
        for at in range(0, len(pcm), 16_000):
            socket.send_bytes(pcm[at : at + 16_000])
        socket.send_text(json.dumps({"type": "CloseStream"}))
        with pytest.raises(WebSocketDisconnect):
            while True:
                messages.append(socket.receive_json())
    return [message for message in messages if message["type"] == "Results"]


def test_a_live_stream_says_what_the_redactor_says(service: Service) -> None:
    headers, kinds = service.key(), "spelled,numbers,name"
    clear = [m for m in stream_events(service, headers, "") if m["is_final"]]
    shown = [m for m in stream_events(service, headers, f"&redact={kinds}") if m["is_final"]]
    words = [w for m in clear for w in m["channel"]["alternatives"][0]["words"]]
    line = Line(words=tuple(w["word"] for w in words), marks=(), must=True)
    expected = StreamRedactor(parse_policy([kinds])).final(line.timed(), last=True)
    texts = [m["channel"]["alternatives"][0]["transcript"] for m in shown]
    assert " ".join(text for text in texts if text) == assemble.joined(expected.words)
    for query in ("&redact=shoe_size", "&redact_mode=both"):
        with pytest.raises(WebSocketDenialResponse):
            stream_events(service, headers, query)


class Spoken:
    """A session that says given utterances: finals at the cuts, a partial after every word."""

    def __init__(self, line: Line, cuts: list[int]) -> None:
        self.live: Any = SimpleNamespace(request=SimpleNamespace(rows=1))
        self._line, self._cuts = line, [0, *cuts, len(line.words)]

    def _event(self, begin: int, end: int, *, is_final: bool) -> StreamEvent:
        words = tuple(self._line.timed()[begin:end])
        return StreamEvent(text=assemble.joined(words), words=words, confidence=0.9,
                           start_s=float(begin), end_s=float(end), is_final=is_final)  # fmt: skip

    async def accept(self, _: bytes) -> AsyncIterator[Event]:
        for begin, end in zip(self._cuts, self._cuts[1:-1], strict=False):
            for upto in range(begin + 1, end + 1):
                yield self._event(begin, upto, is_final=False)
            yield self._event(begin, end, is_final=True)
            yield UtteranceEnd(last_word_end_s=float(end))

    async def conclude(self, *, last: bool) -> AsyncIterator[Event]:
        middle = (self._cuts[-2] + self._cuts[-1] + 1) // 2
        yield self._event(self._cuts[-2], middle, is_final=True)  # an endpoint in what was buffered
        yield self._event(middle, self._cuts[-1], is_final=True)

    def close(self) -> None:
        pass


async def everything(session: RedactedSession) -> list[Event]:
    events = [event async for event in session.accept(b"")]
    return events + [event async for event in session.conclude(last=True)]


@pytest.mark.parametrize("line", [line for line in read_suite() if line.marks and line.must],
                         ids=lambda line: " ".join(line.words)[:50])  # fmt: skip
def test_no_event_of_a_live_stream_leaks(line: Line) -> None:
    places = list(range(1, len(line.words)))
    for cuts in (places[::2], places[2:3], places):
        events = asyncio.run(everything(RedactedSession(Spoken(line, cuts), PII)))
        spoken = [event for event in events if isinstance(event, StreamEvent)]
        for event in spoken:
            assert not leaks(line, event.words), [word.word for word in event.words]
            assert event.text == assemble.joined(event.words)
            assert not event.words or event.start_s <= event.words[0].start
        finals = [event for event in spoken if event.is_final]
        hidden = [span for event in finals for span in event.redactions]
        assert {span.kind for span in hidden} >= {mark.kind for mark in line.marks}
        covered = [p for e in finals for w in e.words for p in range(int(w.start), int(w.end) + 1)]
        assert covered == list(range(len(line.words)))
        assert any(isinstance(event, UtteranceEnd) for event in events) == bool(cuts)


def test_nothing_of_the_suite_is_in_logs_metrics_or_records(
    service: Service, says: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [line for line in read_suite() if line.marks]
    headers = service.key("unredacted", tenant="careful")
    logger = logging.getLogger(logs.LOGGER_NAME)
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger=logs.LOGGER_NAME)
    try:
        for number, line in enumerate(lines):
            says(line)
            redact = ("pii", "false")[number % 2]
            assert service.post(headers, redact=redact).status_code == 200
    finally:
        logger.removeHandler(caplog.handler)
    admin = {"Authorization": f"Bearer {service.store.create('careful', ['admin']).text}"}
    page = service.client.get("/metrics", headers=admin).text
    said = [str(vars(record)) for record in caplog.records]
    assert any("transcribed" in entry for entry in said)
    kept = b"".join(path.read_bytes() for path in service.folder.rglob("*") if path.is_file())
    for line in lines:
        for mark in line.marks:
            secret = " ".join(line.words[mark.start : mark.end])
            if len(secret) < 8:  # in digests and keys any three digits stand somewhere
                continue
            assert secret.encode() not in kept
            assert secret not in page and not any(secret in entry for entry in said)
