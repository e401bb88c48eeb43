"""The real ``openai`` package, newest and older, against the service on a real port."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai.types.audio import (
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)

from serving.recognizer import AudioRequest
from serving.runtime import Runtime
from tests.support_bundle import babble, make_bundle
from tests.support_live import served
from tests.support_packages import interpreter, without_python
from tests.support_service import wav

ROOT = Path(__file__).resolve().parents[2]
SPEECH = wav(babble(75.0))  # three pieces
ALIASES = ("whisper-1", "gpt-4o-transcribe")
_LIMIT_S = 240


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def service(bundle_dir: Path) -> Iterator[tuple[str, Runtime]]:
    with served(bundle_dir, model_version="7", model_aliases=ALIASES) as pair:
        yield pair


@pytest.fixture(scope="module")
def expected(service: tuple[str, Runtime]) -> str:
    (direct,) = service[1].recognizer.recognize([AudioRequest(content=SPEECH)])
    assert direct.transcript is not None and direct.transcript.text
    return direct.transcript.text


def sdk_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)


def ask(url: str, content: bytes = SPEECH, **fields: Any) -> Any:
    chosen: dict[str, Any] = {"file": ("a.wav", content), "model": "whisper-1", **fields}
    return sdk_of(url).audio.transcriptions.create(**chosen)


def test_every_format_as_the_client_reads_it(service: tuple[str, Runtime], expected: str) -> None:
    url, _ = service
    plain = ask(url, include=["logprobs"], chunking_strategy="auto", languages=["en"])
    assert plain.text == expected and plain.usage.type == "duration" and plain.usage.seconds == 75
    assert "".join(letter.token for letter in plain.logprobs) == expected
    assert ask(url, response_format="text") == expected + "\n"
    for kind in ("srt", "vtt"):
        document = ask(url, response_format=kind)
        assert isinstance(document, str) and " --> " in document
    verbose = ask(
        url,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 400},
    )
    # Strictly: every field that the client's types promise is there, and of its type.
    TranscriptionVerbose.model_validate(verbose.model_dump(), strict=True)
    assert " ".join(word.word for word in verbose.words) == expected
    assert all(segment.tokens and segment.avg_logprob < 0 for segment in verbose.segments)


def test_an_alias_is_answered_with_the_real_name(service: tuple[str, Runtime]) -> None:
    url, _ = service
    for alias in ALIASES:
        answer = sdk_of(url).audio.transcriptions.with_raw_response.create(
            file=("a.wav", wav(babble(1.0))), model=alias
        )
        assert answer.headers["openai-model"] == "tiny@7"
        assert answer.http_response.json()["model"] == "tiny@7"
    assert sdk_of(url).models.retrieve("whisper-1").id == "tiny"


def test_deltas_are_stable_and_add_up(service: tuple[str, Runtime], expected: str) -> None:
    events = list(ask(service[0], stream=True, include=["logprobs"]))
    *deltas, done = events
    assert len(deltas) >= 3
    assert all(isinstance(event, TranscriptionTextDeltaEvent) for event in deltas)
    assert isinstance(done, TranscriptionTextDoneEvent)
    TranscriptionTextDoneEvent.model_validate(done.model_dump(), strict=True)
    assert "".join(event.delta for event in deltas) == done.text == expected
    for event in events:
        text = done.text if event is done else event.delta
        assert "".join(letter.token for letter in event.logprobs) == text
    usage = done.usage
    assert usage.type == "tokens" and usage.total_tokens == usage.input_tokens + len(expected)
    assert usage.input_tokens == usage.input_token_details.audio_tokens == 75_000 // 40


def test_silence_streams_one_event(service: tuple[str, Runtime]) -> None:
    (done,) = list(ask(service[0], wav(np.zeros(32_000, np.float32)), stream=True))
    assert done.type == "transcript.text.done" and done.text == ""
    assert done.warnings == ["no_speech"]


def test_what_is_wrong_before_the_first_event_is_a_status(service: tuple[str, Runtime]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(service[0], b"no audio at all" * 9, stream=True)
    assert refused.value.param == "file" and refused.value.code == "unreadable_audio"


def test_what_goes_wrong_later_is_raised_by_the_client(bundle_dir: Path) -> None:
    with served(bundle_dir, model_aliases=ALIASES) as (url, runtime):
        engine, calls = runtime.recognizer.engine, []
        inner = engine.offline

        def breaks(pieces: Any) -> Any:
            calls.append(len(pieces))
            if len(calls) > 1:
                raise RuntimeError("secret words")
            return inner(pieces)

        engine.offline = breaks  # type: ignore[method-assign]
        events = []
        with pytest.raises(openai.APIError) as failed:
            for event in ask(url, stream=True):
                events.append(event)
        assert [event.type for event in events] == ["transcript.text.delta"]
        assert failed.value.body["type"] == "server_error"  # type: ignore[index]
        assert "secret" not in str(failed.value.body)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_the_work(bundle_dir: Path, stream: bool) -> None:
    with served(bundle_dir, model_aliases=ALIASES) as (url, runtime):
        engine, calls, go_on = runtime.recognizer.engine, [], threading.Event()
        inner = engine.offline

        def held(pieces: Any) -> Any:
            calls.append(len(pieces))
            if len(calls) > (1 if stream else 0):
                assert go_on.wait(30)
            return inner(pieces)

        engine.offline = held  # type: ignore[method-assign]
        sound = wav(babble(280.0))  # more than two model calls
        if stream:
            events = ask(url, sound, stream=True)
            assert next(iter(events)).type == "transcript.text.delta"
            until(lambda: len(calls) == 2)
            events.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                ask(url, sound, timeout=1.0)
            assert calls
        until(lambda: _cancelled(runtime) == 1.0)
        before = len(calls)
        go_on.set()
        with served(bundle_dir) as (other, _):  # the time of another request, and no more calls
            assert ask(other, wav(babble(1.0)), model="tiny").text
        assert len(calls) == before


def _cancelled(runtime: Runtime) -> float:
    return float(runtime.metrics.requests.labels("transcriptions", "cancelled")._value.get())


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai-1.12", "openai-1.68"])
def test_older_clients_read_the_same(
    name: str, service: tuple[str, Runtime], expected: str, tmp_path: Path
) -> None:
    python = interpreter(name)
    sound = tmp_path / "a.wav"
    sound.write_bytes(SPEECH)
    done = subprocess.run(
        [python, "tests/clients/openai_1.py", f"{service[0]}/v1", str(sound)],
        cwd=ROOT,
        env=without_python(os.environ),
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert f"openai-{seen['version']}".startswith(name)
    assert seen["models"] == ["tiny"] and seen["refused"] == "temperature"
    assert seen["json"] == seen["verbose"]["text"] == expected
    assert seen["text"].strip() == expected and seen["vtt"].startswith("WEBVTT")
    assert " --> " in seen["srt"] and seen["verbose"]["words"] and seen["verbose"]["segments"]
    if name == "openai-1.68":
        kinds = [kind for kind, _ in seen["events"]]
        assert set(kinds[:-1]) == {"TranscriptionTextDeltaEvent"}
        assert kinds[-1] == "TranscriptionTextDoneEvent"
        assert "".join(event["delta"] for _, event in seen["events"][:-1]) == expected
