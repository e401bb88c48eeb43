"""Rungs that need another model in memory: the int8 bundle, and longer chunks for live streams."""

import asyncio
import io
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.datastructures import UploadFile

from features.bundle import Bundle, write_bundle
from features.decode import DecoderConfig
from governance.errors import AuricleError
from serving.admission.ladder import Ladder
from serving.api.openai_answers import answer
from serving.api.openai_form import TranscriptionForm
from serving.file_options import NOTHING_SPECIAL
from serving.loaded import INT8_MODEL, LARGER_CHUNKS
from serving.loading import load_runtime
from serving.metrics import ServiceMetrics
from serving.problems import ApiProblem
from serving.recognizer import GREEDY_DECODING
from serving.runtime import Runtime
from serving.schema import Transcript
from serving.settings import ServeSettings
from serving.streaming.sessions import StreamSession
from serving.streaming.streams import StreamRequest
from serving.streaming.transcripts import stream_transcript
from tests.support_bundle import babble, make_bundle
from tests.support_service import pcm16, wav

SOUND = babble(2.5)
ALL = (GREEDY_DECODING, INT8_MODEL, LARGER_CHUNKS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle with two sizes of chunk, and what passes for its int8 bundle."""
    root = tmp_path_factory.mktemp("bundles")
    beam = DecoderConfig(kind="beam", beam=4)
    short = Bundle.load(make_bundle(root / "short", decoder=beam))
    wide = Bundle.load(make_bundle(root / "wide", decoder=beam, chunk_ms=1280))
    files = {name: one.folder / name for one in (wide, short) for name in one.files}
    config = replace(short.config, chunks={**short.config.chunks, **wide.config.chunks})
    write_bundle(root / "full", config, files)
    write_bundle(root / "int8", replace(config, variant="int8"), files)
    write_bundle(root / "other", replace(config, variant="int8", name="other"), files)
    return {name: root / name for name in ("short", "full", "int8", "other")}


def runtime_of(folder: Path, light: Path | None, **choices: Any) -> Runtime:
    settings = ServeSettings(
        bundle_dir=folder, light_bundle_dir=light, max_streams=3, drain_s=1.0, **choices
    )
    return load_runtime(settings, ServiceMetrics(CollectorRegistry()))


class Clock:
    """A clock that stands still between the moments of a test."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def pressed(runtime: Runtime, rungs: int) -> None:
    """Pressure that lasted for so many rungs; then nobody's clock moves."""
    clock = Clock()
    ladder = Ladder(runtime.model.rungs, clock=clock)
    runtime.entrance.ladder = ladder
    while ladder.level < rungs:
        ladder.observe(1.0)
        clock.now_s += 2.0
    assert ladder.level == rungs


async def file_of(runtime: Runtime) -> Transcript:
    return await runtime.transcribe(lambda: wav(SOUND), name="a.wav", speaker=None, network_s=0.0)


async def send(session: StreamSession) -> None:
    async for _ in session.accept(pcm16(SOUND).tobytes()):
        pass
    async for _ in session.conclude(last=True):
        pass


async def stream_of(runtime: Runtime) -> tuple[Transcript, int]:
    session = await runtime.open_stream(StreamRequest())
    await send(session)
    chunk = session.live.parts.engine.graph.chunk_frames
    transcript = stream_transcript(session.live)
    session.close()
    return transcript, chunk


def served(runtime: Runtime, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await runtime.start()
        try:
            await scenario()
        finally:
            await runtime.close()

    asyncio.run(run())


def test_each_rung_is_taken_in_turn_and_named(folders: dict[str, Path]) -> None:
    runtime = runtime_of(folders["full"], folders["int8"])
    assert runtime.model.rungs == ALL

    async def scenario() -> None:
        found = []
        for level in range(4):
            pressed(runtime, level)
            file, (stream, chunk) = await file_of(runtime), await stream_of(runtime)
            found.append((file.model.variant, file.degradation, stream.model.variant, chunk))
            assert stream.degradation == (",".join(ALL[:level]) or None)
        assert found == [
            ("fp32", None, "fp32", 16),
            ("fp32", "greedy_decoding", "fp32", 16),
            ("int8", "greedy_decoding,int8_model", "int8", 16),
            ("int8", "greedy_decoding,int8_model", "int8", 32),
        ]
        pressed(runtime, 4)
        with pytest.raises(ApiProblem) as refused:
            await runtime.open_stream(StreamRequest())
        assert refused.value.status == 429 and refused.value.retry_after_s

    served(runtime, scenario)


def test_an_open_stream_stays_on_its_model(folders: dict[str, Path]) -> None:
    runtime = runtime_of(folders["full"], folders["int8"])

    async def scenario() -> None:
        session = await runtime.open_stream(StreamRequest())
        pressed(runtime, 3)
        await send(session)
        transcript = stream_transcript(session.live)
        session.close()
        assert (transcript.model.variant, transcript.degradation) == ("fp32", None)
        assert [m.batcher.streams_open for m in runtime.model.lighter.values()] == [0, 0]

    served(runtime, scenario)


def test_longer_chunks_alone_are_a_rung_of_streams_only(folders: dict[str, Path]) -> None:
    runtime = runtime_of(folders["full"], None)
    assert runtime.model.rungs == (GREEDY_DECODING, LARGER_CHUNKS)

    async def scenario() -> None:
        pressed(runtime, 2)
        file, (stream, chunk) = await file_of(runtime), await stream_of(runtime)
        assert (file.degradation, chunk) == (GREEDY_DECODING, 32)
        assert stream.degradation == "greedy_decoding,larger_chunks"

    served(runtime, scenario)


def test_a_bundle_of_another_model_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(AuricleError, match="its name differs"):
        runtime_of(folders["full"], folders["other"])
    with pytest.raises(AuricleError, match="it is fp32"):
        runtime_of(folders["full"], folders["short"])


def test_full_quality_loads_nothing_beside_the_model(folders: dict[str, Path]) -> None:
    runtime = runtime_of(folders["full"], folders["int8"], degrade=False)
    assert not runtime.model.lighter and not runtime.entrance.ladder.degradation


@pytest.mark.parametrize("shape", ["json", "verbose_json", "text"])
def test_plain_answers_say_what_was_given_up(folders: dict[str, Path], shape: str) -> None:
    runtime = runtime_of(folders["short"], None)
    nothing: Any = None  # no segment is asked for

    async def scenario() -> None:
        for level, name in ((0, None), (1, GREEDY_DECODING)):
            pressed(runtime, level)
            form = TranscriptionForm(
                upload=UploadFile(io.BytesIO()), response_format=shape, granularities=(),
                logprobs=False, stream=False, options=NOTHING_SPECIAL,
            )  # fmt: skip
            told = answer(form, await file_of(runtime), (), nothing)
            assert told.headers.get("x-auricle-degradation") == name
            if shape == "json":
                assert json.loads(bytes(told.body)).get("degradation") == name

    served(runtime, scenario)
