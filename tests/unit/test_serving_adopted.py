"""An adopted model is refused or served like Auricle's own; with the real package and real weights."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient, WebSocketDenialResponse

from benchmarks._whisper import NoPeer, weights
from data import synth_voices
from data.audio import load_mono_16k
from governance.errors import AuricleError, ConfigError
from serving.adopted.folder import open_folder
from serving.adopted.queue import WindowQueue
from serving.adopted.whisper import WhisperEngine
from serving.adopted.windows import Passage, Reading, Stretch, Window, split
from serving.loading import load_runtime
from serving.metrics import ServiceMetrics
from serving.problems import ApiProblem
from serving.recognizer import AudioRequest
from serving.runtime import Runtime
from serving.schema import Transcript
from serving.service import settings_from_environment
from serving.settings import AdoptedSettings, ServeSettings
from tests.support_bundle import make_bundle
from tests.support_service import running, wav

ROUTE = "/v1/audio/transcriptions"
MODEL = "whisper-tiny"
SENTENCES = (
    "Please bring me a large cup of coffee with a little milk.",
    "The train to London leaves at seven in the morning.",
)
FIRST = 100  # the first time stamp of the windows below


@pytest.fixture(scope="module")
def folder() -> Path:
    """Whisper's smallest weights, fetched once for all proofs of this machine."""
    try:
        return weights()
    except NoPeer as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def service(folder: Path, bundle_dir: Path) -> Iterator[tuple[TestClient, Runtime]]:
    adopted = AdoptedSettings(name=MODEL, folder=folder, aliases=("whisper-1",))
    with running(bundle_dir, adopted=(adopted,)) as pair:
        yield pair


def metrics() -> ServiceMetrics:
    return ServiceMetrics(CollectorRegistry())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two sentences, spoken by eSpeak."""
    folder = tmp_path_factory.mktemp("clips")
    asked = [
        synth_voices.Utter(
            text=text, voice="en-us+m3", words_per_minute=140, pitch=50, pitch_range=50,
            path=str(folder / f"{at}.wav"),
        )
        for at, text in enumerate(SENTENCES)
    ]  # fmt: skip
    synth_voices.speak(asked)
    return [Path(one.path).read_bytes() for one in asked]


def post(client: TestClient, content: bytes, **fields: Any) -> Any:
    data = {"model": MODEL, **fields}
    return client.post(ROUTE, data=data, files={"file": ("a.wav", content, "audio/wav")})


def complete(folder: Path) -> Path:
    """A folder that holds every file, whatever is in them."""
    folder.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_text("{}")
    return folder


def test_an_incomplete_folder_is_refused_and_what_it_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        open_folder(tmp_path / "nowhere")
    (tmp_path / "model.bin").write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"config\.json, tokenizer\.json, vocabulary\.json") as no:
        open_folder(tmp_path)
    assert "ct2-transformers-converter" in str(no.value.mend)


def test_a_folder_is_known_by_its_bytes_and_tells_its_licence(tmp_path: Path) -> None:
    folder = complete(tmp_path / "model")
    before = open_folder(folder)
    assert before.licence is None and before == open_folder(folder)
    (folder / "README.md").write_text(
        "---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: none\n"
    )
    assert open_folder(folder).licence == "apache-2.0"
    assert open_folder(folder).digest != before.digest


def test_a_missing_package_is_named_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faster_whisper", None)
    with pytest.raises(ConfigError, match="faster-whisper is not installed") as missing:
        WhisperEngine(open_folder(complete(tmp_path / "model")))
    assert "setup.sh whisper" in str(missing.value.mend)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuricleError, match="cannot be loaded as a Whisper model"):
        WhisperEngine(open_folder(complete(tmp_path / "model")))


def test_the_environment_names_models_and_their_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_ADOPTED", "whisper-tiny=/models/tiny, base=/models/base")
    monkeypatch.setenv("AURICLE_MODEL_ALIASES", "auricle,whisper-1=whisper-tiny")
    monkeypatch.setenv("AURICLE_ADOPTED_THREADS", "3")
    chosen = settings_from_environment()
    assert chosen.model_aliases == ("auricle",)
    assert [(one.name, str(one.folder), one.aliases, one.threads) for one in chosen.adopted] == [
        ("whisper-tiny", "/models/tiny", ("whisper-1",), 3),
        ("base", "/models/base", (), 3),
    ]
    monkeypatch.setenv("AURICLE_MODEL_ALIASES", "whisper-1=small")
    with pytest.raises(ConfigError, match="'small' is no adopted model"):
        settings_from_environment()
    monkeypatch.setenv("AURICLE_ADOPTED", "/models/tiny")
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        settings_from_environment()


@given(st.lists(st.integers(95, 130), min_size=1, max_size=14), st.integers(1, 3000))
@settings(deadline=None)
def test_stretches_are_cut_as_faster_whisper_cuts_them(tokens: list[int], frames: int) -> None:
    from faster_whisper import transcribe

    class Self:
        time_precision, input_stride = 0.02, 2

    class Signs:
        timestamp_begin = FIRST

    theirs, seek, _ = transcribe.WhisperModel._split_segments_by_timestamps(
        Self, Signs, list(tokens), 0.0, frames, frames * 0.01, 0
    )
    ours, next_frame = split(tokens, first_stamp=FIRST, frames=frames)
    assert next_frame == seek
    for one, other in zip(ours, theirs, strict=True):
        assert list(one.tokens) == other["tokens"]
        assert (one.start_s, one.end_s) == pytest.approx((other["start"], other["end"]))


@given(st.integers(1, 20_000), st.integers(50, 9_000), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_features_are_faster_whispers_for_every_cut(samples: int, cut: int, seed: int) -> None:
    from faster_whisper.feature_extractor import FeatureExtractor

    extractor = FeatureExtractor()
    from serving.adopted.mel import MelShape, log_mel

    sound_T = np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)
    blocks = [sound_T[at : at + cut] for at in range(0, samples, cut)]
    ours = log_mel(blocks, MelShape(filters_MF=extractor.mel_filters))
    np.testing.assert_allclose(ours, extractor(sound_T)[:, :-1], atol=1e-5)


def passage(frames: int, **choices: Any) -> Passage:
    loud = np.random.default_rng(3).uniform(-0.5, 1.5, (80, frames)).astype(np.float32)
    loud[:, ::50] = -1.0
    usual: dict[str, Any] = {"prompt": (7,), "language": None, "among": (), "words": False}
    return Passage(x_MT=loud, **{**usual, **choices})


def reading(*stretches: Stretch, next_frame: int = 3000, silence: float = 0.0) -> Reading:
    return Reading(
        stretches=stretches, next_frame=next_frame, avg_logprob=-2.0 * silence,
        no_speech_prob=silence, language="de",
    )  # fmt: skip


def test_a_window_begins_where_the_one_before_was_closed() -> None:
    way = passage(4500)
    first = way.next_window()
    assert first is not None and first.x_MT.shape == (80, 3000)
    assert (first.prompt, first.language) == ((7,), None)
    way.accept(reading(Stretch(start_s=0.0, end_s=2.0, tokens=(1,)), next_frame=200))
    second = way.next_window()
    assert second is not None and second.x_MT.shape == (80, 3000)
    assert (second.prompt, second.language) == ((), "de")
    way.accept(reading(silence=0.9))  # the model hears nothing: nothing is said
    way.accept(reading(Stretch(start_s=1.0, end_s=2.0, tokens=(2,)), next_frame=1300))
    assert way.next_window() is None and way.fraction == 1.0
    assert [said.offset_s for said in way.said] == [0.0, 32.0]


def test_an_even_noise_never_reaches_the_model() -> None:
    way = passage(3200)
    way.x_MT[:] = np.random.default_rng(5).uniform(-0.01, 0.01, way.x_MT.shape)
    assert way.next_window() is None


class Reader:
    """Answers when it is let to; a window of one frame breaks its call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def read(self, windows: Any) -> list[Reading]:
        self.calls.append(len(windows))
        if any(window.x_MT.shape[1] == 1 for window in windows):
            raise RuntimeError("secret words")
        return [reading(next_frame=window.x_MT.shape[1]) for window in windows]


def window(frames: int) -> Window:
    return Window(x_MT=np.zeros((80, frames), np.float32))


def test_windows_of_several_requests_share_calls_and_a_bad_one_fails_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    reader = Reader()

    async def scenario() -> list[Any]:
        queue = WindowQueue(reader, metrics(), threads=1, max_rows=4)
        asked = [queue.read(window(frames), deadline_s=60) for frames in (9, 8, 1, 7, 6)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await queue.close()
        with pytest.raises(ApiProblem, match="stopped"):
            await queue.read(window(3), deadline_s=60)
        return answers

    answers = asyncio.run(scenario())
    assert reader.calls[:2] == [1, 4]  # alone at once; what came meanwhile, together
    failed = answers.pop(2)
    assert isinstance(failed, ApiProblem) and failed.status == 500
    assert [answer.reading.next_frame for answer in answers] == [9, 8, 7, 6]
    assert "secret" not in capfd.readouterr().err


def test_who_goes_away_or_waits_too_long_is_not_read() -> None:
    reader = Reader()
    now = [0.0]

    async def scenario() -> None:
        queue = WindowQueue(reader, metrics(), threads=1, max_rows=4, clock=lambda: now[0])
        first = asyncio.ensure_future(queue.read(window(9), deadline_s=60))
        gone = asyncio.ensure_future(queue.read(window(8), deadline_s=60))
        late = asyncio.ensure_future(queue.read(window(7), deadline_s=1))
        await asyncio.sleep(0)
        gone.cancel()
        now[0] = 2.0
        await first
        with pytest.raises(ApiProblem) as dropped:
            await late
        assert dropped.value.code == "deadline_exceeded"
        await queue.close()

    asyncio.run(scenario())
    assert reader.calls == [1]


@pytest.mark.slow
def test_the_text_is_faster_whispers_own_alone_and_in_company(
    service: tuple[TestClient, Runtime], clips: list[bytes]
) -> None:
    """The same options: greedy, no earlier text, temperature 0."""
    client, runtime = service
    model = runtime.adopted.find(MODEL)
    assert model is not None
    engine = model.recognizer.engine
    alone = [post(client, clip, response_format="verbose_json").json() for clip in clips]
    windows = []
    for clip, said in zip(clips, alone, strict=True):
        samples_T = load_mono_16k(clip, name="clip")
        theirs, _ = engine._outer.transcribe(
            samples_T, language="en", beam_size=1, temperature=0.0,
            condition_on_previous_text=False,
        )  # fmt: skip
        spoken = [
            (one.text.strip(), one.start, min(one.end, said["duration"])) for one in theirs
        ]  # theirs may end after the recording
        assert [(one["text"], one["start"], one["end"]) for one in said["segments"]] == spoken
        (prepared,) = [model.recognizer.prepare(AudioRequest(content=clip))]
        windows.append(prepared.passage.next_window())
    assert "coffee" in alone[0]["text"] and "London" in alone[1]["text"]
    together = engine.read([one for one in windows if one is not None])
    for one, said in zip(together, alone, strict=True):
        text = " ".join(engine.text(part.tokens).strip() for part in one.stretches)
        assert text == said["text"]


def test_an_answer_has_the_one_shape_and_names_its_model(
    service: tuple[TestClient, Runtime], clips: list[bytes]
) -> None:
    client, _ = service
    answer = post(
        client, clips[0], model="whisper-1", response_format="verbose_json",
        **{"timestamp_granularities[]": ["word", "segment"]},
    )  # fmt: skip
    body = answer.json()
    transcript = Transcript.model_validate(body["auricle"])
    assert answer.headers["openai-model"] == f"{MODEL}@{transcript.model.version}"
    assert body["language"] == "english" and transcript.model.variant == "int8"
    words = transcript.words
    assert "".join(word.word for word in words) == transcript.text.replace(" ", "")
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges) and 0 <= edges[0] < edges[-1] <= transcript.duration_s
    assert all(0 < word.confidence <= 1 for word in words)
    assert all(segment["tokens"] for segment in body["segments"])
    listed = client.get("/v1/models").json()["data"]
    assert [entry["id"] for entry in listed] == ["tiny", MODEL]
    assert client.get("/v1/models/whisper-1").json() == listed[1]
    assert post(client, clips[0], model="tiny").json()["model"].startswith("tiny@")


def test_times_are_reckoned_only_where_they_are_shown(
    service: tuple[TestClient, Runtime], clips: list[bytes]
) -> None:
    client, _ = service
    captions = post(client, clips[0], response_format="srt").text
    assert "-->" in captions and "coffee" in captions
    plain = post(client, clips[0], response_format="verbose_json").json()
    assert plain["auricle"]["words"] == [] and plain["segments"]


def test_what_is_to_be_hidden_is_hidden(
    service: tuple[TestClient, Runtime], clips: list[bytes]
) -> None:
    client, _ = service
    hidden = post(client, clips[0], **{"redact[]": "pii"})
    assert hidden.status_code == 200, hidden.text
    assert "coffee" in hidden.json()["text"]


def test_silence_says_nothing_and_costs_no_model(service: tuple[TestClient, Runtime]) -> None:
    client, _ = service
    answer = post(client, wav(np.zeros(16_000, np.float32))).json()
    assert (answer["text"], answer["warnings"]) == ("", ["no_speech"])
    short = post(client, wav(np.ones(100, np.float32)))
    assert short.json()["error"]["code"] == "audio_too_short"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": "true"}, "stream"),
        ({"include[]": "logprobs"}, "include"),
        ({"keywords[]": "tea"}, "keywords"),
        ({"multichannel": "true"}, "multichannel"),
        ({"chunking_strategy": '{"type": "server_vad"}'}, "chunking_strategy"),
        ({"chunking_strategy[type]": "server_vad"}, "chunking_strategy[type]"),
        ({"temperature": "0.7"}, "temperature"),
        ({"language": "xx"}, "language"),
        ({"languages[]": "xx"}, "languages"),
        ({"prompt": "a" * 5000}, "prompt"),
        ({"response_format": "xml"}, "response_format"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_name(
    service: tuple[TestClient, Runtime], fields: dict[str, str], param: str
) -> None:
    answer = post(service[0], wav(np.zeros(16_000, np.float32)), **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_live_streams_and_other_names_are_refused(service: tuple[TestClient, Runtime]) -> None:
    client, _ = service
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect(f"/v1/listen?model={MODEL}"),
    ):
        raise AssertionError("a stream was opened")
    error = denied.value.json()["error"]
    assert (denied.value.status_code, error["code"]) == (400, "unsupported_model")
    assert post(client, b"", model="whisper-2").status_code == 404


def test_a_name_belongs_to_one_model(folder: Path, bundle_dir: Path) -> None:
    twice = AdoptedSettings(name="tiny", folder=folder, threads=1)
    with pytest.raises(ConfigError, match="Auricle's own model"):
        load_runtime(ServeSettings(bundle_dir=bundle_dir, adopted=(twice,)), metrics())
