"""Streams that outlive their connection: cut anywhere, words and times are those of the whole."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from features.decode import DecoderConfig
from serving.client import ServiceError, StreamResult
from serving.resumable import ResumableStream
from serving.runtime import Runtime
from tests.support_bundle import babble, hush, make_bundle
from tests.support_faults import Faults, proxy
from tests.support_live import served
from tests.support_service import encoded, pcm16

SPEECH = np.concatenate(
    [babble(3.1), hush(1.2), babble(2.3, seed=9), hush(1.6), babble(1.9, seed=4), hush(0.3)]
)
PCM = pcm16(SPEECH).tobytes()
PIECE = 3_200
FINALIZE_AT = 4 * PIECE * 10  # bytes; in the middle of speech
CLOSE_FRAME_BYTES = 8  # the client's answer to the service's: header, mask, code
ENDPOINTING = {"endpointing": "400"}


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def service(bundle_dir: Path) -> Iterator[tuple[str, Runtime]]:
    with served(bundle_dir, max_streams=3) as pair:
        yield pair


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def talk(url: str, content: bytes = PCM, **choices: Any) -> tuple[StreamResult, int]:
    """Stream it all, with a Finalize on the way."""
    choices = {"rate_hz": 16_000, "parameters": ENDPOINTING, "patience_s": 20.0, **choices}
    with ResumableStream(url, **choices) as live:
        for at in range(0, len(content), PIECE):
            live.send(content[at : at + PIECE])
            if at + PIECE == FINALIZE_AT:
                live.finalize()
    return live.result, live.reconnections


def told(result: StreamResult) -> list[tuple[Any, ...]]:
    """Everything in the finals that a user sees: words, times, confidence, and why it is final."""
    return [
        (
            final["start"], final["duration"], final["speech_final"], final["from_finalize"],
            final["channel_index"], json.dumps(final["channel"]),
        )
        for final in result.finals
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(service: tuple[str, Runtime]) -> StreamResult:
    result, reconnections = talk(service[0])
    assert reconnections == 0 and len([final for final in told(result) if final[2]]) >= 3
    assert result.metadata is not None and result.metadata["duration"] == pytest.approx(10.4)
    return result


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_that_is_cut_at_random_loses_and_doubles_nothing(
    service: tuple[str, Runtime], whole: StreamResult, seed: int
) -> None:
    rng = random.Random(seed)
    faults = Faults(
        port=port_of(service[0]),
        cut_after_bytes=[rng.randrange(600, len(PCM) // 3) for _ in range(4)],
        reset=bool(seed % 2),
        piece_bytes=rng.choice([700, 1 << 16]),
        swallow_answers_after_bytes=rng.choice([None, 2_000, 9_000]),
    )
    with proxy(faults) as url:
        result, reconnections = talk(url)
    assert reconnections >= 4
    assert told(result) == told(whole)
    assert result.metadata is not None and whole.metadata is not None
    assert result.metadata["sha256"] == whole.metadata["sha256"]
    starts = [final["start"] for final in result.finals]
    ends = [final["start"] + final["duration"] for final in result.finals]
    assert starts[1:] == pytest.approx(ends[:-1], abs=1e-6)


def test_an_end_that_was_lost_with_the_connection_is_told_again(
    service: tuple[str, Runtime], whole: StreamResult
) -> None:
    """CloseStream arrives with the last byte that does: the service ends the stream unheard."""
    faults = Faults(port=port_of(service[0]))
    with proxy(faults) as url:
        talk(url)
    length = faults.passed_bytes[0] - CLOSE_FRAME_BYTES
    faults = Faults(
        port=port_of(service[0]), cut_after_bytes=[length], reset=False,
        swallow_answers_after_bytes=900,
    )  # fmt: skip
    with proxy(faults) as url:
        result, reconnections = talk(url)
    assert reconnections == 1
    assert told(result) == told(whole) and result.metadata is not None


@pytest.mark.parametrize(
    ("rate_hz", "encoding"), [(16_000, "linear16"), (8_000, "mulaw"), (44_100, "linear16")]
)
def test_another_process_goes_on_from_the_last_final(
    bundle_dir: Path, rate_hz: int, encoding: str
) -> None:
    """The first process is killed, as far as the client can tell; the second never heard of it."""
    content = encoded(np.interp(
        np.arange(int(len(SPEECH) * rate_hz / 16_000)) * 16_000 / rate_hz,
        np.arange(len(SPEECH)), SPEECH,
    ).astype(np.float32), encoding)  # fmt: skip
    choices = {"rate_hz": rate_hz, "encoding": encoding}
    with served(bundle_dir) as (first, _), served(bundle_dir) as (second, runtime):
        expected, _ = talk(first, content, **choices)
        cuts = [len(content) * 5 // 8]
        faults = Faults(port=port_of(first), cut_after_bytes=cuts)
        with (
            proxy(faults) as url,
            ResumableStream(url, parameters=ENDPOINTING, patience_s=20.0, **choices) as live,
        ):
            for at in range(0, len(content), PIECE):
                if faults.connections == 1 and at > len(content) // 2:
                    faults.port = port_of(second)
                live.send(content[at : at + PIECE])
                if at + PIECE == FINALIZE_AT:
                    live.finalize()
        assert live.reconnections == 1
        assert told(live.result) == told(expected)
        assert live.result.metadata is not None and expected.metadata is not None
        assert live.result.metadata["duration"] == expected.metadata["duration"]
        assert runtime.metrics is not None


def test_a_stopping_process_tells_provisional_finals_and_another_takes_over(
    bundle_dir: Path,
) -> None:
    with served(bundle_dir) as (first, old), served(bundle_dir) as (second, _):
        expected, _ = talk(first)
        faults = Faults(port=port_of(first))
        seen: list[dict[str, Any]] = []
        half = len(PCM) // 2 // PIECE * PIECE
        with (
            proxy(faults) as url,
            ResumableStream(
                url, rate_hz=16_000, parameters=ENDPOINTING, on_message=seen.append, patience_s=20.0
            ) as live,
        ):
            for at in range(0, len(PCM), PIECE):
                if at == half:
                    faults.port = port_of(second)
                    loop = old.batcher._owner.get_loop()  # type: ignore[union-attr]
                    loop.call_soon_threadsafe(old.draining.set)
                live.send(PCM[at : at + PIECE])
                if at + PIECE == FINALIZE_AT:
                    live.finalize()
        assert any(message.get("auricle", {}).get("provisional") for message in seen)
        assert told(live.result) == told(expected)


def test_without_another_process_the_provisional_finals_stand(bundle_dir: Path) -> None:
    heard = threading.Event()

    def listen(message: dict[str, Any]) -> None:
        if message["type"] == "Results" and message["channel"]["alternatives"][0]["transcript"]:
            heard.set()

    with served(bundle_dir) as (url, runtime):
        live = ResumableStream(url, rate_hz=16_000, patience_s=0.1, on_message=listen)
        with pytest.raises(ServiceError, match="no connection"), live:
            live.send(PCM[: 2 * 16_000 * 2])
            assert heard.wait(20)
            loop = runtime.batcher._owner.get_loop()  # type: ignore[union-attr]
            loop.call_soon_threadsafe(runtime.draining.set)
            live.close()
    (final,) = [final for final in live.result.finals if final["auricle"].get("provisional")]
    assert final["channel"]["alternatives"][0]["transcript"]


def test_a_beam_with_a_language_model_goes_on_as_well(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny", decoder=DecoderConfig(kind="beam", beam=4, alpha=0.0))
    with served(folder) as (url, _):
        expected, _ = talk(url)
        faults = Faults(port=port_of(url), cut_after_bytes=[90_000, 80_000])
        with proxy(faults) as hurt:
            result, _ = talk(hurt)
    assert told(result) == told(expected)


def test_the_old_connection_is_fenced_when_the_client_is_back(
    service: tuple[str, Runtime],
) -> None:
    place = "ws" + service[0].removeprefix("http")
    place += "/v1/listen?encoding=linear16&sample_rate=16000&resumable=true"
    with connect(place, compression=None) as old:
        session = old.response.headers["x-auricle-session"]
        old.send(PCM[:64_000])
        with connect(place, additional_headers={"x-auricle-session": session}) as new:
            assert new.response.headers["x-auricle-session"] == session
            with pytest.raises(ConnectionClosed) as closed:
                old.recv(timeout=20)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
            assert "another connection" in closed.value.rcvd.reason
            begin = int(new.response.headers["x-auricle-resume-from-byte"])
            new.send(PCM[begin:96_000])
            new.send(json.dumps({"type": "CloseStream"}))
            messages = [json.loads(message) for message in new]
    assert messages[-1]["duration"] == 3.0


def test_a_session_is_found_by_its_id_alone_and_not_for_ever(bundle_dir: Path) -> None:
    with served(bundle_dir, max_streams=1, stream_keep_s=0.2) as (url, runtime):
        place = "ws" + url.removeprefix("http")
        place += "/v1/listen?encoding=linear16&sample_rate=16000"
        kept = place + "&resumable=true"
        with connect(kept) as one:
            session = one.response.headers["x-auricle-session"]
            one.send(PCM[:6_400])
            _reset(one)
        wait_until(lambda: all(one.expiry for one in list(runtime.keeper._streams.values())))
        with connect(kept, additional_headers={"x-auricle-session": "guessed"}) as other:
            # Room is made for who is here, and nothing is told of another's stream.
            assert other.response.headers["x-auricle-session"] not in ("guessed", session)
            assert other.response.headers["x-auricle-resume-from-byte"] == "0"
            _reset(other)
        slab = runtime.recognizer.engine.slab
        wait_until(lambda: slab.in_use == 0 and not runtime.keeper._streams)


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it never came true")


def test_what_is_kept_for_the_absent_is_bounded(bundle_dir: Path) -> None:
    """Ended streams hold no place at the model, but what they told is kept as well."""
    with served(bundle_dir, max_streams=2) as (url, runtime):
        place = "ws" + url.removeprefix("http") + "/v1/listen?sample_rate=16000&resumable=true"
        for _ in range(140):
            with connect(place, compression=None) as live:
                live.send(json.dumps({"type": "CloseStream"}))
                assert json.loads(live.recv(timeout=20))["type"] == "Results"
        streams = runtime.keeper._streams
        wait_until(lambda: len(streams) <= 128 and runtime.recognizer.engine.slab.in_use == 0)
        assert len(streams) > 100


def test_of_several_that_come_back_at_once_the_last_talks(service: tuple[str, Runtime]) -> None:
    url, runtime = service
    place = "ws" + url.removeprefix("http")
    place += "/v1/listen?encoding=linear16&sample_rate=16000&resumable=true"
    with connect(place, compression=None) as first:
        session = {"x-auricle-session": first.response.headers["x-auricle-session"]}
        kept = runtime.keeper._streams[session["x-auricle-session"]]
        first.send(PCM[:320_000])
        wait_until(lambda: kept.next_byte == 320_000)  # what is not heard yet is asked for again
        talked = []

        def come_back() -> None:
            with connect(place, additional_headers=session, open_timeout=60) as again:
                talked.append(again.response.headers["x-auricle-resume-from-byte"])
                with suppress(ConnectionClosed):  # the next one may have come back already
                    again.send(json.dumps({"type": "KeepAlive"}))

        crowd = [threading.Thread(target=come_back) for _ in range(4)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join(60)
    assert talked == ["320000"] * 4


def _reset(socket: Any) -> None:
    """End the connection as no WebSocket does."""
    socket.socket.close()


@pytest.mark.parametrize(
    "headers",
    [{"x-auricle-resume": "e30="}, {"x-auricle-resume": "!"}, {"x-auricle-resume": "A" * 8_004},
     {"x-auricle-resume": "eyJzZXEiOjEsImJlZ2lucyI6W3siYmFzZSI6LTF9XX0="}],
    ids=["empty", "no-base64", "too-long", "negative"],
)  # fmt: skip
def test_a_place_that_cannot_be_read_is_refused(
    service: tuple[str, Runtime], headers: dict[str, str]
) -> None:
    place = "ws" + service[0].removeprefix("http") + "/v1/listen?sample_rate=16000&resumable=true"
    with pytest.raises(InvalidStatus) as refused, connect(place, additional_headers=headers):
        pass
    assert refused.value.response.status_code == 400
    assert "resume" in refused.value.response.headers["dg-error"]
