"""The HTTP side: OpenAI's shapes for answers."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from features.decode import DecoderConfig
from features.priors import Prior, PriorKey, write_view
from features.spec import FeatureSpec
from features.tokens import TokenTable
from serving.runtime import Runtime
from serving.schema import Transcript
from tests.support_bundle import babble, make_bundle
from tests.support_openai import ROUTE, error_of, post
from tests.support_service import pcm16, running, wav


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def service(bundle_dir: Path) -> Iterator[tuple[TestClient, Runtime]]:
    with running(bundle_dir, max_upload_bytes=4 << 20, max_duration_s=60.0) as pair:
        yield pair


@pytest.fixture
def client(service: tuple[TestClient, Runtime]) -> TestClient:
    return service[0]


def test_the_three_formats_say_the_same(client: TestClient) -> None:
    sound = wav(babble(3.0))
    short = post(client, sound).json()
    text = post(client, sound, response_format="text")
    asked = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    verbose = post(client, sound, **asked).json()
    assert short["text"] and text.text == short["text"] + "\n" and verbose["text"] == short["text"]
    assert text.headers["content-type"].startswith("text/plain")
    assert verbose["duration"] == 3.0 and verbose["language"] == "english"
    assert " ".join(word["word"] for word in verbose["words"]) == short["text"]
    assert " ".join(segment["text"] for segment in verbose["segments"]) == short["text"]
    transcript = Transcript.model_validate(verbose["auricle"])
    assert transcript.model.name == "tiny" and transcript.audio_digest.startswith("sha256:")
    timings = transcript.timings_ms
    assert timings.total >= timings.features > 0 and timings.model > 0 and timings.decoding > 0
    parts = timings.model_dump()
    assert parts.pop("total") == pytest.approx(sum(parts.values()), abs=1.0)
    assert all(word.end > word.start >= 0 for word in transcript.words)
    assert transcript.normalisation.state == "cold"


def test_subtitles_hold_every_word_and_say_what_they_are(client: TestClient) -> None:
    sound = wav(babble(6.0))
    text = post(client, sound).json()["text"]
    for name, kind in (("srt", "application/x-subrip"), ("vtt", "text/vtt")):
        answer = post(client, sound, response_format=name)
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        lines = [line for line in answer.text.split("\n") if "-->" not in line]
        said = [line for line in lines if line and line != "WEBVTT" and not line.isdigit()]
        assert " ".join(said) == text
        assert answer.headers["openai-model"].startswith("tiny@")


def test_log_probabilities_spell_the_text(client: TestClient, bundle_dir: Path) -> None:
    sound = wav(babble(70.0)[: 59 * 16_000])  # more than one piece
    answer = post(client, sound, **{"include[]": "logprobs"}).json()
    letters = answer["logprobs"]
    assert "".join(letter["token"] for letter in letters) == answer["text"]
    assert all(bytes(letter["bytes"]).decode() == letter["token"] for letter in letters)
    assert all(letter["logprob"] <= 0.0 for letter in letters)
    assert len({letter["logprob"] for letter in letters}) > len(letters) / 3
    assert "logprobs" not in post(client, sound).json()


def test_a_segment_says_what_it_rests_on(client: TestClient, bundle_dir: Path) -> None:
    sound = wav(babble(6.0))
    verbose = post(client, sound, response_format="verbose_json").json()
    letters = post(client, sound, **{"include[]": "logprobs"}).json()["logprobs"]
    table = TokenTable.from_file(bundle_dir / "tokens.txt")
    said = [letter for letter in letters if letter["token"] != " "]
    weighted = 0.0
    for segment in verbose["segments"]:
        assert table.decode(segment["tokens"]) == segment["text"]
        assert segment["avg_logprob"] < 0.0 <= segment["no_speech_prob"] <= 1.0
        weighted += segment["avg_logprob"] * len(segment["text"].replace(" ", ""))
    total = sum(letter["logprob"] for letter in said)
    assert weighted == pytest.approx(total, rel=1e-3)


def test_a_shorter_pause_may_begin_a_new_segment(client: TestClient) -> None:
    sound = wav(babble(12.0))
    asked = {"response_format": "verbose_json"}
    usual = post(client, sound, **asked).json()
    for strategy in (
        {"chunking_strategy": '{"type": "server_vad", "silence_duration_ms": 100}'},
        {
            "chunking_strategy[type]": "server_vad",
            "chunking_strategy[silence_duration_ms]": "100",
            "chunking_strategy[prefix_padding_ms]": "300",
            "chunking_strategy[threshold]": "0.5",
        },
    ):
        finer = post(client, sound, **asked, **strategy).json()
        assert finer["text"] == usual["text"]
        assert len(finer["segments"]) > len(usual["segments"])
        for one, next_one in itertools.pairwise(finer["segments"]):
            assert next_one["start"] - one["end"] > 0.1 or next_one["end"] - one["start"] > 15


def test_an_expected_phrase_is_heard_where_it_nearly_was(client: TestClient) -> None:
    """The tiny model's letters are confused enough for any phrase to win somewhere."""
    sound = wav(babble(6.0))
    plain = post(client, sound).json()
    first = plain["text"].split()[0]
    for fields in (
        {"prompt": f"{first[:-1]}, {first}e."},
        {"keywords[]": [first[:-1], f"{first}E"]},
    ):
        helped = post(client, sound, **fields).json()
        assert helped["warnings"] == [] and helped["text"] != plain["text"]


def test_phrases_that_cannot_be_used_are_counted_and_never_logged(
    bundle_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    closed = make_bundle(
        bundle_dir.parent / "closed",
        decoder=DecoderConfig(lexicon=True),
        words=("a", "be", "sea", "canary"),
    )
    prose = "a canary sang a song that was longer than any phrase may be, "
    with running(closed) as (client, _):
        fields = {"prompt": prose + "be sea, dragon", "keywords[]": ["canary", "日本"]}
        answer = post(client, wav(babble(2.0)), **fields)
        assert answer.json()["warnings"] == ["unusable_hotwords:3"]
        assert answer.headers["auricle-warnings"] == "unusable_hotwords:3"
        page = client.get("/metrics").text
    written = capfd.readouterr()
    for word in ("canary", "dragon"):
        assert word not in written.err + written.out + page


def test_words_come_only_when_asked_for(client: TestClient) -> None:
    verbose = post(client, wav(babble(1.0)), response_format="verbose_json").json()
    assert "words" not in verbose and "segments" in verbose


def test_silence_is_an_empty_text_with_a_warning(client: TestClient) -> None:
    answer = post(client, wav(np.zeros(32_000, np.float32)))
    assert answer.status_code == 200
    assert answer.json()["text"] == "" and answer.json()["warnings"] == ["no_speech"]


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (96_000, 2), (44_100, 1)])
def test_any_rate_and_stereo(client: TestClient, rate_hz: int, channels: int) -> None:
    sink = io.BytesIO()
    samples = np.repeat(pcm16(babble(2.0, rate_hz=rate_hz))[:, None], channels, axis=1)
    soundfile.write(sink, samples, rate_hz, format="FLAC", subtype="PCM_16")
    answer = post(client, sink.getvalue(), response_format="verbose_json").json()
    assert answer["duration"] == 2.0 and answer["text"]


def test_unknown_model_is_404_and_names_ours(client: TestClient) -> None:
    answer = post(client, wav(babble(0.5)), model="gpt-9")
    assert answer.status_code == 404
    error = error_of(answer)
    assert error["code"] == "model_not_found" and "tiny" in error["message"]
    assert client.get("/v1/models/gpt-9").status_code == 404


def test_models(client: TestClient) -> None:
    listing = client.get("/v1/models").json()
    assert [entry["id"] for entry in listing["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json() == listing["data"][0]


def test_only_names_that_the_service_was_started_with_are_answered(bundle_dir: Path) -> None:
    """Who asks for `tiny@staging` must not get whatever is loaded."""
    names = ("auricle", "auricle@staging")
    with running(bundle_dir, model_version="7", model_aliases=names) as (client, _):
        for name in ("tiny", "tiny@7", *names):
            assert client.get(f"/v1/models/{name}").status_code == 200, name
            assert post(client, wav(babble(0.5)), model=name).status_code == 200, name
        for name in ("tiny@6", "tiny@staging", "auricle@champion", "auricle@nonsense", "auricle@"):
            for answer in (
                client.get(f"/v1/models/{name}"),
                post(client, wav(babble(0.5)), model=name),
            ):
                error = error_of(answer)
                assert (answer.status_code, error["code"]) == (404, "model_not_found"), name
                assert name in error["message"] and "tiny@7" in error["message"]


def test_a_known_speaker_starts_warm_by_header(bundle_dir: Path, tmp_path: Path) -> None:
    view = tmp_path / "priors.sqlite"
    prior = Prior(mean_F=np.full(80, 12.0, np.float32), frames=4000)
    fingerprint = FeatureSpec().fingerprint()
    key = PriorKey(tenant="default", speaker="p-1", channel="wide", fingerprint=fingerprint)
    write_view(view, [(key, prior.to_bytes())])
    with running(bundle_dir, priors_path=view, prior_deadline_ms=5_000.0) as (client, _):
        states = []
        for headers in ({"X-Auricle-Speaker": "p-1"}, {"X-Auricle-Speaker": "p-2"}, {}):
            data = {"model": "tiny", "response_format": "verbose_json"}
            files = {"file": ("a.wav", wav(babble(1.0)))}
            answer = client.post(ROUTE, data=data, files=files, headers=headers)
            states.append(answer.json()["auricle"]["normalisation"])
        assert states[0] == {"state": "warm", "prior_digest": prior.digest}
        assert states[1] == states[2] == {"state": "cold", "prior_digest": None}
        page = client.get("/metrics").text
        assert 'auricle_normalisation_total{state="warm"} 1.0' in page
        assert "p-1" not in page


def test_metrics_keep_the_stages_apart_and_hold_no_content(
    service: tuple[TestClient, Runtime],
) -> None:
    client, _ = service
    said = post(client, wav(babble(2.0))).json()["text"].split()
    page = client.get("/metrics").text
    for stage in ("queue", "features", "model", "decoding"):
        assert f'auricle_{stage}_seconds_count{{mode="file"}}' in page
    assert 'auricle_requests_total{outcome="ok",route="transcriptions"}' in page
    assert "auricle_streams_open 0.0" in page
    assert "a.wav" not in page
    assert not any(len(word) > 5 and word in page for word in said)


def test_a_long_file_is_cut_and_nothing_is_lost(bundle_dir: Path) -> None:
    with running(bundle_dir) as (client, runtime):
        calls: list[int] = []
        engine = runtime.recognizer.engine
        inner = engine.offline

        def counted(pieces: Any) -> Any:
            calls.extend(len(piece) for piece in pieces)
            return inner(pieces)

        engine.offline = counted  # type: ignore[method-assign]
        answer = post(client, wav(babble(95.0)), response_format="verbose_json").json()
        assert answer["duration"] == 95.0
        assert len(calls) >= 4 and max(calls) <= 3000
        assert sum(calls) == 9498
        assert answer["segments"][-1]["end"] > 90
