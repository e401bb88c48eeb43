"""The WebSocket side: Deepgram's messages, refusals before the upgrade, bounded sessions."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from features.decode import DecoderConfig
from serving import logs
from serving.api.listen_query import PARAMETERS, REFUSED
from serving.file_options import FileOptions
from serving.recognizer import AudioRequest
from serving.runtime import Runtime
from tests.support_bundle import babble, hush, make_bundle
from tests.support_listen import CLOSE, LISTEN, PAGE, SPEECH, transcripts, until_closed
from tests.support_live import served
from tests.support_service import encoded, opus, pcm16, running, wait_until, wav


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Runtime]]:
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    with running(folder, max_streams=3, max_frame_bytes=1 << 20) as pair:
        yield pair


@pytest.fixture
def client(service: tuple[TestClient, Runtime]) -> TestClient:
    return service[0]


def talk(client: TestClient, pcm: bytes, size: int, query: str = "") -> list[dict[str, Any]]:
    with client.websocket_connect(LISTEN + query) as socket:
        for at in range(0, len(pcm), size):
            socket.send_bytes(pcm[at : at + size])
        socket.send_text(CLOSE)
        messages, code = until_closed(socket)
    assert code == 1000
    return messages


def test_any_cut_gives_the_same_results_and_the_file_agrees(
    service: tuple[TestClient, Runtime],
) -> None:
    client, runtime = service
    pcm = pcm16(SPEECH).tobytes()
    first = talk(client, pcm, 3_201)
    second = talk(client, pcm, 40_000)
    assert transcripts(first) == transcripts(second)
    (file,) = runtime.recognizer.recognize([AudioRequest(content=wav(SPEECH))])
    assert file.transcript is not None
    assert " ".join(text for text in transcripts(first) if text) == file.transcript.text


def test_the_shape_of_results_and_metadata(client: TestClient) -> None:
    messages = talk(client, pcm16(SPEECH).tobytes(), 6_400, "&interim_results=true&model=tiny")
    *results, metadata = messages
    assert {message["type"] for message in results} == {"Results"}
    assert any(not message["is_final"] for message in results)
    spoken = next(message for message in results if message["speech_final"])
    assert spoken["is_final"] and spoken["start"] == 0.0 and spoken["duration"] > 3.0
    alternative = spoken["channel"]["alternatives"][0]
    assert [word["word"] for word in alternative["words"]] == alternative["transcript"].split()
    assert 0 <= alternative["confidence"] <= 1
    assert spoken["metadata"]["model_info"]["name"] == "tiny"
    assert metadata["type"] == "Metadata" and metadata["duration"] == pytest.approx(6.1)
    assert metadata["request_id"] == spoken["metadata"]["request_id"]
    assert len(metadata["sha256"]) == 64


def test_partials_come_only_when_asked_for(client: TestClient) -> None:
    messages = talk(client, pcm16(SPEECH).tobytes(), 6_400)
    assert all(message["is_final"] for message in messages[:-1])


def test_finalize_answers_at_once_and_the_stream_goes_on(client: TestClient) -> None:
    pcm = pcm16(babble(2.0)).tobytes()
    with client.websocket_connect(LISTEN) as socket:
        socket.send_bytes(pcm)
        socket.send_text(json.dumps({"type": "KeepAlive"}))
        socket.send_text(json.dumps({"type": "Finalize"}))
        first = socket.receive_json()
        assert first["from_finalize"] and first["is_final"]
        assert first["channel"]["alternatives"][0]["transcript"]
        socket.send_bytes(pcm)
        socket.send_bytes(b"")  # ends the stream, as CloseStream does
        messages, code = until_closed(socket)
    assert code == 1000
    assert messages[-1]["type"] == "Metadata" and messages[-1]["duration"] == 4.0
    assert "".join(transcripts(messages))


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


def test_a_voice_and_the_end_of_an_utterance_are_told(client: TestClient) -> None:
    sound = np.concatenate([hush(1.0), babble(2.0), hush(2.5), babble(1.5, seed=5)])
    query = "&interim_results=true&vad_events=true&utterance_end_ms=1200&endpointing=300"
    messages = talk(client, pcm16(sound).tobytes(), 3_200, query)
    starts = [m["timestamp"] for m in messages if m["type"] == "SpeechStarted"]
    assert len(starts) == 2 and 0.9 < starts[0] < 1.7 and 5.4 < starts[1] < 6.2
    (end,) = [m for m in messages if m["type"] == "UtteranceEnd"]
    spoken = next(m for m in messages if m.get("speech_final"))
    words = spoken["channel"]["alternatives"][0]["words"]
    assert end["last_word_end"] == words[-1]["end"] and end["channel"] == [0, 1]
    order = kinds(messages)
    at = order.index("UtteranceEnd")
    assert messages.index(spoken) < at and order.index("SpeechStarted") < messages.index(spoken)
    quiet = kinds(talk(client, pcm16(sound).tobytes(), 3_200, "&endpointing=300"))
    assert "SpeechStarted" not in quiet and "UtteranceEnd" not in quiet


def test_channels_are_mixed_or_each_its_own(client: TestClient) -> None:
    left, right = pcm16(babble(2.4)), pcm16(np.concatenate([hush(0.8), babble(1.6, seed=5)]))
    both = np.stack([left, right], axis=1).tobytes()
    apart = talk(client, both, 3_333, "&channels=2&multichannel=true")
    for channel, alone in enumerate((left, right)):
        own = [m for m in apart if m["type"] == "Results" and m["channel_index"] == [channel, 2]]
        assert transcripts(own) == transcripts(talk(client, alone.tobytes(), 6_400))
    assert apart[-1]["channels"] == 2 and apart[-1]["duration"] == 2.4
    mixed = talk(client, both, 3_333, "&channels=2")
    assert {tuple(m["channel_index"]) for m in mixed[:-1]} == {(0, 1)}


def test_telephone_audio_is_heard(client: TestClient) -> None:
    sound = babble(2.5, rate_hz=8_000)
    query = "/v1/listen?sample_rate=8000&encoding="
    texts = []
    for encoding in ("linear16", "mulaw", "alaw"):
        with client.websocket_connect(query + encoding) as socket:
            socket.send_bytes(encoded(sound, encoding))
            socket.send_text(CLOSE)
            messages, _ = until_closed(socket)
        assert messages[-1]["duration"] == 2.5
        texts.append(" ".join(transcripts(messages)))
    assert all(texts)


def test_a_running_stream_cannot_be_configured_and_goes_on(client: TestClient) -> None:
    with client.websocket_connect(LISTEN) as socket:
        socket.send_text(json.dumps({"type": "Configure", "keyterms": ["latte"]}))
        answer = socket.receive_json()
        assert answer["type"] == "ConfigureFailure"
        assert answer["code"] == "CONFIGURE_KEYTERMS_NOT_SUPPORTED"
        socket.send_bytes(pcm16(babble(1.0)).tobytes())
        socket.send_text(CLOSE)
        messages, code = until_closed(socket)
    assert code == 1000 and "".join(transcripts(messages))


def test_the_published_table_is_the_codes() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| (honoured|neutral|refused) \| ([^|]*)\|$", PAGE, re.M)
    published = [
        (name, kind, values.strip())
        for names, kind, values in rows
        for name in re.findall("`([^`]+)`", names)
    ]
    assert published == [
        *(
            (
                row.name,
                row.kind,
                row.values if isinstance(row.values, str) else ", ".join(row.values),
            )
            for row in PARAMETERS
        ),
        *((name, "refused", "") for name in REFUSED),
    ]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        *((f"{name}=true", name) for name in REFUSED),
        ("keywords=latte%3A2", "keywords"),
        ("keyterm=" + "a" * 101, "keywords"),
        ("utterance_end_ms=999&interim_results=true", "utterance_end_ms"),
        ("utterance_end_ms=1000", "utterance_end_ms"),
        ("vad_events=1", "vad_events"),
        ("endpointing=9", "endpointing"),
        ("encoding=amr-nb", "encoding"),
        ("encoding=linear32", "encoding"),
        ("sample_rate=7", "sample_rate"),
        ("sample_rate=abc", "sample_rate"),
        ("channels=9", "channels"),
        ("interim_results=yes", "interim_results"),
        ("endpointing=-4", "endpointing"),
        ("smart_format=true", "smart_format"),
        ("language=fr", "language"),
        ("channels=1&channels=2", "channels"),
        ("shoe_size=44", "shoe_size"),
        ("speaker=%3Cx%3E", "speaker"),
    ],
)
def test_a_bad_parameter_is_refused_before_the_upgrade(
    client: TestClient, query: str, named: str
) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect(f"/v1/listen?{query}"),
    ):
        pass
    assert denied.value.status_code == 400
    assert denied.value.json()["error"]["param"] == named
    assert named in denied.value.headers["dg-error"] or named in ("language", "speaker")


def test_an_unknown_model_is_404_before_the_upgrade(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect(LISTEN + "&model=nova-9"),
    ):
        pass
    assert denied.value.status_code == 404


def test_an_unknown_path_is_404_before_the_upgrade(client: TestClient) -> None:
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/v2/listen"):
        pass
    assert denied.value.status_code == 404
    assert denied.value.json()["error"]["code"] == "not_found"


def test_an_odd_number_of_bytes_is_no_error(client: TestClient) -> None:
    """Half a sample at the end is left out; a stream of one byte heard nothing."""
    whole = pcm16(SPEECH).tobytes()
    assert transcripts(talk(client, whole[:-1], 3_201)) == transcripts(talk(client, whole, 3_201))
    assert talk(client, b"\x01", 1)[-1]["auricle"]["warnings"] == ["no_speech"]


def test_streams_run_in_the_only_chunk_that_there_is(tmp_path: Path) -> None:
    with running(make_bundle(tmp_path / "tiny", chunk_ms=320)) as (client, _):
        assert "".join(transcripts(talk(client, pcm16(babble(2.0)).tobytes(), 6_400)))


def test_nothing_of_a_broken_frame_reaches_the_log(tmp_path: Path) -> None:
    """uvicorn itself meets text that is no UTF-8, and would print a traceback with its bytes."""
    logs.configure()
    kept: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(self.format(record))

    handler = Keep()
    foreign = [logging.getLogger(name) for name in logs.FOREIGN_LOGGER_NAMES]
    for logger in foreign:
        logger.addHandler(handler)
    try:
        with served(make_bundle(tmp_path / "tiny")) as (url, runtime):
            place = "ws" + url.removeprefix("http") + LISTEN + "&speaker=canary-7"
            with connect(place) as live:
                live.send(b"\xffcanary phrase", text=True)
                with pytest.raises(ConnectionClosed):
                    live.recv(timeout=20)
            wait_until(lambda: runtime.recognizer.engine.slab.in_use == 0)
    finally:
        for logger in foreign:
            logger.removeHandler(handler)
    said = "\n".join(kept)
    assert "Invalid UTF-8" in said and "UnicodeDecodeError" in said
    assert "Traceback" not in said and "canary" not in said and "0xff" not in said


def test_opus_from_a_recorder_is_heard_without_being_named(client: TestClient) -> None:
    sound = babble(2.5)
    for kind, query in (("ogg", "?"), ("webm", "?"), ("ogg", "?encoding=opus&")):
        content = opus(kind, sound)
        said = []
        for size in (333, len(content)):
            with client.websocket_connect(f"/v1/listen{query}interim_results=true") as socket:
                for at in range(0, len(content), size):
                    socket.send_bytes(content[at : at + size])
                socket.send_text(CLOSE)
                messages, code = until_closed(socket)
            assert code == 1000 and abs(messages[-1]["duration"] - 2.5) < 0.03
            said.append([message.get("channel") for message in messages])
        assert said[0] == said[1] and "".join(transcripts(messages))


def test_phrases_to_expect_are_expected_in_a_stream_as_in_a_file(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny", decoder=DecoderConfig(kind="beam", beam=8, alpha=0.0))
    sound = babble(2.6)
    with running(folder) as (client, runtime):

        def of_the_file(phrase: str) -> str:
            options = FileOptions(hotwords=(phrase,) if phrase else ())
            request = AudioRequest(content=wav(sound), options=options)
            (answer,) = runtime.recognizer.recognize([request])
            assert answer.transcript is not None
            return answer.transcript.text

        plain = of_the_file("")
        likely = {word[:-1] for word in plain.split() if len(word) > 1} | set("abcdefgh")
        phrase = next(phrase for phrase in sorted(likely) if of_the_file(phrase) != plain)
        for name in ("keyterm", "keywords"):
            messages = talk(
                client, pcm16(sound).tobytes(), 6_400, f"&{name}={phrase}&keyterm=%E4%BD%A0"
            )
            assert " ".join(text for text in transcripts(messages) if text) == of_the_file(phrase)
            assert messages[-1]["auricle"]["warnings"] == ["unusable_hotwords:1"]
