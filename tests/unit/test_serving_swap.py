"""Another version in one process: what is in flight keeps its model, what is wrong changes nothing."""

import asyncio
import json
import threading
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from prometheus_client import CollectorRegistry
from websockets.sync.client import connect

from features.bundle import Bundle, write_bundle
from features.decode import DecoderConfig
from features.spec import FeatureSpec, FeatureSpecMismatch
from governance.errors import AuricleError, TamperError
from serving.admission.ladder import REFUSE
from serving.loaded import LoadedModel
from serving.loading import load_recognizer, load_runtime, load_successor
from serving.metrics import ServiceMetrics
from serving.problems import ApiProblem
from serving.recognizer import AudioRequest
from serving.runtime import Runtime
from serving.schema import Transcript
from serving.settings import ServeSettings
from serving.streaming.events import StreamEvent
from serving.streaming.sessions import StreamSession
from serving.streaming.streams import StreamRequest
from tests.support_bundle import babble, hush, make_bundle
from tests.support_live import served
from tests.support_service import pcm16, wav

SPEECH = np.concatenate([babble(1.5), hush(1.0), babble(1.0, seed=5)])
SOUND, PCM = wav(SPEECH), pcm16(SPEECH).tobytes()
WORKERS = 8


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions by name."""
    folder = tmp_path_factory.mktemp("bundles")
    return {name: make_bundle(folder / name, seed=seed) for name, seed in (("a", 11), ("b", 12))}


@pytest.fixture(scope="module")
def texts(bundles: dict[str, Path]) -> dict[str, tuple[str, str]]:
    """What each version hears in the file and in the stream."""
    heard = {}
    for name, folder in bundles.items():
        recognizer = load_recognizer(ServeSettings(bundle_dir=folder))
        (answer,) = recognizer.recognize([AudioRequest(content=SOUND)])
        assert answer.transcript is not None
        stream = recognizer.open_stream(StreamRequest())
        events = [*stream.accept(PCM), *stream.finalize()]
        heard[name] = (answer.transcript.text, " ".join(e.text for e in events if e.is_final))
    assert heard["a"] != heard["b"] and all(all(pair) for pair in heard.values())
    return heard


def runtime_of(folder: Path, version: str = "a", **choices: Any) -> Runtime:
    chosen = ServeSettings(
        bundle_dir=folder,
        model_version=version,
        workers=WORKERS,
        max_streams=8,
        cache_dir=folder.parent / "cache",
        **choices,
    )
    return load_runtime(chosen, ServiceMetrics(CollectorRegistry()))


def successor(
    runtime: Runtime, folder: Path, version: str, digest: str = ""
) -> Callable[[LoadedModel], LoadedModel]:
    return partial(
        load_successor, settings=runtime.settings, metrics=runtime.metrics, bundle_dir=folder,
        version=version, digest=digest,
    )  # fmt: skip


async def begun(runtime: Runtime, gate: threading.Event) -> "asyncio.Task[Transcript]":
    """A file whose bytes come when the gate opens; it is in work when this returns."""
    loop, reading = asyncio.get_running_loop(), asyncio.Event()

    def read() -> bytes:
        loop.call_soon_threadsafe(reading.set)
        assert gate.wait(20)
        return SOUND

    task = asyncio.create_task(runtime.transcribe(read, name="audio", speaker=None, network_s=0.0))
    await reading.wait()
    return task


async def finals(session: StreamSession, content: bytes, *, last: bool = False) -> list[str]:
    events = [event async for event in session.accept(content)] if content else []
    if last:
        events += [event async for event in session.conclude(last=True)]
    return [e.text for e in events if isinstance(e, StreamEvent) and e.is_final]


@dataclass(kw_only=True)
class Scenario:
    """Files and streams that begin and end around swaps, in any order."""

    runtime: Runtime
    bundles: dict[str, Path]
    texts: dict[str, tuple[str, str]]
    files: list[tuple[str, threading.Event, "asyncio.Task[Transcript]"]] = field(
        default_factory=list
    )
    streams: list[tuple[str, StreamSession, list[str]]] = field(default_factory=list)

    @property
    def now(self) -> str:
        return self.runtime.model.facts.version

    async def file(self) -> None:
        if len(self.files) < WORKERS - 2:
            gate = threading.Event()
            self.files.append((self.now, gate, await begun(self.runtime, gate)))

    async def stream(self) -> None:
        session = await self.runtime.open_stream(StreamRequest())
        assert session.live.parts.facts.version == self.now
        heard = await finals(session, PCM[: len(PCM) // 2])
        self.streams.append((self.now, session, heard))

    async def swap(self) -> None:
        other = "b" if self.now == "a" else "a"
        await self.runtime.swap(successor(self.runtime, self.bundles[other], other))
        assert self.now == other and self.runtime.ready

    async def end_file(self) -> None:
        if self.files:
            began_with, gate, task = self.files.pop(0)
            gate.set()
            transcript = await task
            assert transcript.model.version == began_with
            assert transcript.text == self.texts[began_with][0]

    async def end_stream(self) -> None:
        if self.streams:
            began_with, session, heard = self.streams.pop(0)
            heard += await finals(session, PCM[len(PCM) // 2 :], last=True)
            assert " ".join(heard) == self.texts[began_with][1]
            session.close()
            session.close()

    async def run(self, steps: list[str]) -> None:
        await self.runtime.start()
        try:
            for step in steps:
                call: Callable[[], Awaitable[None]] = getattr(self, step)
                await call()
            while self.files:
                await self.end_file()
            while self.streams:
                await self.end_stream()
            await asyncio.gather(*self.runtime._leaving.values())
            assert self.runtime.model.batcher.streams_open == 0
        finally:
            for _, gate, _ in self.files:
                gate.set()
            await self.runtime.close()


STEPS = st.lists(
    st.sampled_from(["file", "stream", "swap", "swap", "end_file", "end_stream"]),
    min_size=4, max_size=12,
)  # fmt: skip


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_what_is_in_flight_ends_on_the_model_that_it_began_with(
    steps: list[str], bundles: dict[str, Path], texts: dict[str, tuple[str, str]]
) -> None:
    runtime = runtime_of(bundles["a"])
    asyncio.run(Scenario(runtime=runtime, bundles=bundles, texts=texts).run(steps))


def model_threads() -> int:
    return sum(thread.name.startswith("model") for thread in threading.enumerate())


def test_nothing_of_a_replaced_model_is_left(bundles: dict[str, Path]) -> None:
    async def scenario() -> None:
        runtime = runtime_of(bundles["a"])
        await runtime.start()
        await runtime.transcribe(lambda: SOUND, name="audio", speaker=None, network_s=0.0)
        graphs, before = [], model_threads()
        held = await runtime.open_stream(StreamRequest())
        engine = runtime.recognizer.engine
        for version in "bababa":
            last = runtime.recognizer.engine
            graphs += [weakref.ref(last._offline), weakref.ref(last._stream)]
            del last
            await runtime.swap(successor(runtime, bundles[version], version))
            await runtime.transcribe(lambda: SOUND, name="audio", speaker=None, network_s=0.0)
        (held_model,) = set(runtime._sessions.values())
        leaving = [task for model, task in runtime._leaving.items() if model is not held_model]
        await asyncio.gather(*leaving)
        alive = [graph() is not None for graph in graphs]
        assert alive == [True, True] + [False] * 10, "only the stream's model is kept"
        exposition = runtime.metrics.exposition().decode()
        assert "auricle_models_loaded 2.0" in exposition
        assert 'auricle_model_info{name="tiny",version="a"} 1.0' in exposition
        assert 'auricle_model_info{name="tiny",version="b"} 0.0' in exposition
        held.close()
        await asyncio.gather(*runtime._leaving.values())
        assert not any(graph() is not None for graph in graphs)
        assert engine._offline is None and model_threads() == before
        assert "auricle_models_loaded 1.0" in runtime.metrics.exposition().decode()
        await runtime.close()

    asyncio.run(scenario())


def rewritten(folder: Path, target: Path, change: Callable[[Path], None]) -> Path:
    """A bundle whose digests are right although a graph was changed."""
    bundle = Bundle.load(folder)
    files = {name: bundle.path(name) for name in bundle.files}
    write_bundle(target, bundle.config, files)
    change(target / bundle.config.offline)
    write_bundle(target, bundle.config, {name: target / name for name in files})
    return target


def no_graph(path: Path) -> None:
    path.write_bytes(b"no graph at all")


def no_numbers(path: Path) -> None:
    graph = onnx.load(str(path))
    (head,) = (one for one in graph.graph.initializer if one.name == "head")
    broken = np.full_like(numpy_helper.to_array(head), np.nan)
    head.CopyFrom(numpy_helper.from_array(broken, "head"))
    onnx.save(graph, str(path))


def edited(folder: Path, target: Path) -> Path:
    make_bundle(target)
    with (target / "tokens.txt").open("a") as sink:
        sink.write("\n")
    return target


BROKEN: dict[str, tuple[Callable[[Path, Path], Path], type[AuricleError], str]] = {
    "nothing there": (lambda own, to: to, AuricleError, "not a model bundle"),
    "edited": (edited, TamperError, "never edit a file"),
    "another front end": (
        lambda own, to: make_bundle(to, spec=FeatureSpec(high_hz=7000.0)),
        FeatureSpecMismatch, "high_hz",
    ),
    "another model": (lambda own, to: make_bundle(to, name="other"), AuricleError, "is served"),
    "no such chunk": (lambda own, to: make_bundle(to, chunk_ms=320), AuricleError, "640 ms"),
    "no graph": (lambda own, to: rewritten(own, to, no_graph), AuricleError, "cannot load"),
    "no numbers": (lambda own, to: rewritten(own, to, no_numbers), AuricleError, "no number"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_is_wrong_leaves_the_old_one_serving(
    kind: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    make, error, told = BROKEN[kind]
    folder = make(bundles["a"], tmp_path / "wrong")

    async def scenario() -> None:
        runtime = runtime_of(bundles["a"], chunk_ms=640)
        await runtime.start()
        before = runtime.model
        with pytest.raises(error, match=told):
            await runtime.swap(successor(runtime, folder, "wrong"))
        answer = await runtime.transcribe(lambda: SOUND, name="audio", speaker=None, network_s=0.0)
        assert answer.model.version == "a" and runtime.model is before and runtime.ready
        assert not runtime._leaving
        await runtime.close()

    asyncio.run(scenario())


def test_another_digest_than_the_one_that_was_asked_for_is_refused(
    bundles: dict[str, Path],
) -> None:
    async def scenario() -> None:
        runtime = runtime_of(bundles["a"])
        await runtime.start()
        digest = Bundle.load(bundles["a"]).bundle_digest
        with pytest.raises(TamperError, match="was asked for"):
            await runtime.swap(successor(runtime, bundles["b"], "b", digest=digest))
        await runtime.close()

    asyncio.run(scenario())


def test_a_process_on_its_way_out_takes_no_other_model(bundles: dict[str, Path]) -> None:
    async def scenario() -> None:
        runtime = runtime_of(bundles["a"])
        await runtime.start()
        runtime.draining.set()
        with pytest.raises(ApiProblem):
            await runtime.swap(successor(runtime, bundles["b"], "b"))
        assert runtime.model.facts.version == "a" and not runtime._leaving
        assert runtime.model.batcher._owner is not None and not runtime.model.batcher._owner.done()
        await runtime.close()

    asyncio.run(scenario())


def test_price_and_rungs_are_those_of_the_new_model(tmp_path: Path) -> None:
    greedy = make_bundle(tmp_path / "greedy")
    beam = make_bundle(tmp_path / "beam", decoder=DecoderConfig(kind="beam", beam=4, alpha=0.0))

    async def scenario() -> None:
        runtime = runtime_of(greedy)
        await runtime.start()
        ladder = runtime.entrance.ladder
        assert ladder.rungs == (REFUSE,)
        ladder.level = 1
        await runtime.swap(successor(runtime, beam, "b"))
        assert ladder.rungs == ("greedy_decoding", REFUSE) and ladder.refusing
        ladder.level = 1
        gate = threading.Event()
        degraded = await begun(runtime, gate)
        await runtime.swap(successor(runtime, greedy, "c"))
        assert ladder.rungs == (REFUSE,) and not ladder.degradation
        gate.set()
        assert (await degraded).degradation == "greedy_decoding"
        await runtime.close()

    asyncio.run(scenario())


def test_a_kept_stream_comes_back_to_its_own_model_by_its_pinned_name(
    bundles: dict[str, Path], texts: dict[str, tuple[str, str]]
) -> None:
    half, finals = len(PCM) // 2, []
    pinned = "/v1/listen?model=tiny@a&encoding=linear16&sample_rate=16000&resumable=true"
    with served(bundles["a"], model_version="a") as (url, runtime):
        place = f"ws{url.removeprefix('http')}{pinned}"
        with connect(place) as socket:
            assert socket.response is not None
            session = socket.response.headers["x-auricle-session"]
            socket.send(PCM[:half])
        swapped_on_its_loop(runtime, bundles["b"], "b")
        with connect(place, additional_headers={"x-auricle-session": session}) as socket:
            assert socket.response is not None
            assert socket.response.headers["x-auricle-session"] == session
            socket.send(PCM[int(socket.response.headers["x-auricle-resume-from-byte"]) :])
            socket.send('{"type": "CloseStream"}')
            for text in socket:
                message = json.loads(text)
                if message["type"] == "Results" and message["is_final"]:
                    assert message["metadata"]["model_info"]["version"] == "a"
                    finals.append(message["channel"]["alternatives"][0]["transcript"])
        (facts,) = message["model_info"].values()
        assert message["type"] == "Metadata" and facts["version"] == "a"
        assert " ".join(filter(None, finals)) == texts["a"][1]
        files = {"file": ("x.wav", SOUND)}
        route = f"{url}/v1/audio/transcriptions"
        answer = httpx.post(route, files=files, data={"model": "tiny"})
        assert answer.json()["model"] == "tiny@b" == answer.headers["openai-model"]
        assert httpx.post(route, files=files, data={"model": "tiny@a"}).status_code == 404


def swapped_on_its_loop(runtime: Runtime, folder: Path, version: str) -> None:
    owner = runtime.batcher._owner
    assert owner is not None
    swap = runtime.swap(successor(runtime, folder, version))
    asyncio.run_coroutine_threadsafe(swap, owner.get_loop()).result(20)
