"""One Transcript for every door, and it stays readable: stored payloads by today's code, today's by
a reader that was written when version 1 was published and is never touched again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from serving.schema import Transcript
from serving.settings import JobSettings
from tests.support_bundle import babble, hush, make_bundle
from tests.support_receiver import Receiver, receiving
from tests.support_service import running, wav
from tests.unit.test_serving_jobs_api import ended, submit, until

PAYLOADS = Path(__file__).resolve().parent.parent / "payloads"
STORED = sorted(PAYLOADS.glob("transcript-v1-*.json"))
TRANSCRIPTS = [path for path in STORED if "schema" not in path.name]
SPEECH = wav(np.concatenate([babble(1.2), hush(1.2), babble(0.8)]))


# The frozen reader. It knows what version 1 promised on its first day, and nothing that came later.
def _read(document: Any, fields: dict[str, Any]) -> dict[str, Any]:
    taken = {}
    for name, kind in fields.items():
        value = document[name]
        if isinstance(kind, dict):
            taken[name] = _read(value, kind)
        elif isinstance(kind, list):
            taken[name] = [_read(entry, kind[0]) for entry in value]
        else:
            assert isinstance(value, kind) and not isinstance(value, bool), name
            taken[name] = value
    return taken


NUMBER = (int, float)
WORD = {"word": str, "start": NUMBER, "end": NUMBER, "confidence": NUMBER}
SEGMENT = {
    "id": int, "start": NUMBER, "end": NUMBER, "text": str, "confidence": NUMBER, "words": [WORD],
}  # fmt: skip
MODEL = {"name": str, "version": str, "variant": str, "bundle_digest": str}
TIMINGS = dict.fromkeys(("network", "queue", "features", "model", "decoding", "total"), NUMBER)
TRANSCRIPT = {
    "schema_version": int, "text": str, "language": str, "duration_s": NUMBER,
    "segments": [SEGMENT], "words": [WORD], "model": MODEL, "audio_digest": str,
    "timings_ms": TIMINGS, "warnings": list, "normalisation": {"state": str}, "redactions": list,
}  # fmt: skip
JOB = {
    "id": str, "object": str, "status": str, "model": str, "source": str, "progress": NUMBER,
    "attempts": int, "created_at": int, "expires_at": int, "metadata": dict,
}  # fmt: skip


def read_transcript(document: Any) -> dict[str, Any]:
    taken = _read(document, TRANSCRIPT)
    assert taken["schema_version"] == 1
    words = [word["word"] for segment in taken["segments"] for word in segment["words"]]
    assert " ".join(words) == taken["text"]
    return taken


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("jobs")
    settings = JobSettings(folder=folder, outbound_openings=receiver.opening)
    with running(make_bundle(folder / "tiny"), jobs=settings) as (client, _):
        yield client


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_stored_payload_is_read_by_todays_code_and_keeps_what_it_said(path: Path) -> None:
    stored = json.loads(path.read_text())
    again = Transcript.model_validate(stored).model_dump(mode="json")
    assert {name: again[name] for name in stored} == stored
    read_transcript(again)


def test_the_stored_payloads_are_there() -> None:
    names = {path.stem for path in TRANSCRIPTS}
    assert {f"transcript-v1-{kind}" for kind in ("least", "whole", "redacted")} <= names


def test_yesterdays_reader_reads_every_door_of_today(
    client: TestClient, receiver: Receiver
) -> None:
    endpoint = client.post("/v1/webhooks", json={"url": receiver.url}).json()["id"]
    job = ended(client, submit(client, SPEECH, webhook=endpoint).json()["id"])
    until(lambda: receiver.got)
    event = json.loads(receiver.got[0].body)
    form = {"model": "tiny", "response_format": "verbose_json"}
    direct = client.post("/v1/audio/transcriptions", data=form, files={"file": ("a", SPEECH)})
    result = f"/v1/jobs/{job['id']}/result"
    doors = {
        "direct": direct.json()["auricle"],
        "result": client.get(result).json(),
        "verbose": client.get(result, params={"response_format": "verbose_json"}).json()["auricle"],
        "webhook": event["data"]["transcript"],
    }
    read = {name: read_transcript(document) for name, document in doors.items()}
    for taken in read.values():
        taken.pop("timings_ms")
    assert read["direct"]["text"] and all(taken == read["direct"] for taken in read.values())
    assert _read(event["data"]["job"], JOB) == _read(job, JOB)
    stored = json.loads((PAYLOADS / "webhook-v1-done.json").read_text())
    assert set(stored) <= set(event) and set(stored["data"]) <= set(event["data"])
    assert set(stored["data"]["job"]) <= set(event["data"]["job"])
    assert event["type"] == stored["type"] == "job.done"


def test_stored_webhooks_are_read_by_the_frozen_reader() -> None:
    for name in ("done", "failed"):
        event = json.loads((PAYLOADS / f"webhook-v1-{name}.json").read_text())
        assert event["type"] == f"job.{name}"
        _read(event["data"]["job"], JOB)
        if event["data"]["transcript"] is not None:
            read_transcript(event["data"]["transcript"])


def test_the_schema_grows_by_optional_fields_only() -> None:
    """Against the JSON schema of the first day: nothing goes, nothing changes, nothing is demanded."""
    first = json.loads((PAYLOADS / "transcript-v1-schema.json").read_text())
    today = Transcript.model_json_schema(mode="validation")
    kinds = {"Transcript": (first, today)}
    kinds |= {name: (old, today["$defs"][name]) for name, old in first["$defs"].items()}
    for name, (old, new) in kinds.items():
        assert not set(new.get("required", ())) - set(old.get("required", ())), name
        for field, shape in old["properties"].items():
            now = _bare(new["properties"][field])
            assert now == _bare(shape), f"{name}.{field} has changed"


def _bare(shape: Any) -> Any:
    """A shape without words about it and without defaults."""
    if isinstance(shape, dict):
        left = {k: v for k, v in shape.items() if k not in ("title", "description", "default")}
        return {key: _bare(value) for key, value in left.items()}
    return [_bare(entry) for entry in shape] if isinstance(shape, list) else shape


def test_what_a_later_release_adds_is_passed_over() -> None:
    stored = json.loads((PAYLOADS / "transcript-v1-whole.json").read_text())
    later = {**stored, "speakers": ["a", "b"]}
    later["words"] = [{**word, "speaker": "a"} for word in stored["words"]]
    assert Transcript.model_validate(later) == Transcript.model_validate(stored)


def test_another_version_is_no_version_1() -> None:
    stored = json.loads((PAYLOADS / "transcript-v1-whole.json").read_text())
    with pytest.raises(ValidationError, match="schema_version"):
        Transcript.model_validate({**stored, "schema_version": 2})
