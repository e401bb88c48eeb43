"""The service's application in the test's own process, over the tiny bundle."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from serving.api.app import Application
from serving.job_service import load_jobs
from serving.loading import load_runtime
from serving.metrics import ServiceMetrics
from serving.observe.traces import Tracing
from serving.runtime import Runtime
from serving.settings import ServeSettings
from serving.tenants.desk import open_desk


def pcm16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")


def wav(samples: NDArray[np.float32], rate_hz: int = 16_000) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, pcm16(samples), rate_hz, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def encoded(samples_T: NDArray[np.float32], encoding: str) -> bytes:
    """Samples in an encoding, made by FFmpeg."""
    if encoding == "linear16":
        return pcm16(samples_T).tobytes()
    codec = av.CodecContext.create(f"pcm_{encoding}", "w")
    codec.sample_rate, codec.layout, codec.format = 8_000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(pcm16(samples_T)[None], format="s16", layout="mono")
    frame.sample_rate = 8_000
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def opus(kind: str, samples_T: NDArray[np.float32], *, layout: str = "mono") -> bytes:
    """Opus by FFmpeg's encoder, in FFmpeg's container, written as a live recorder writes it."""
    sink = io.BytesIO()
    options = {"page_duration": "200000"} if kind == "ogg" else {"live": "1"}
    with av.open(sink, "w", format=kind, options=options) as container:
        stream = container.add_stream("libopus", rate=48_000, layout=layout)
        resampler = av.AudioResampler(format="s16", layout=layout, rate=48_000)
        frame = av.AudioFrame.from_ndarray(pcm16(samples_T)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for ready in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(ready))
        container.mux(stream.encode(None))
    return sink.getvalue()


def application_of(
    bundle_dir: Path, *, tracing: Tracing | None = None, **choices: Any
) -> tuple[Starlette, Runtime]:
    """The application, which starts and ends with its server, and the runtime behind it."""
    metrics = ServiceMetrics(CollectorRegistry())
    runtime = load_runtime(ServeSettings(bundle_dir=bundle_dir, **choices), metrics)
    jobs = load_jobs(runtime.settings, runtime)
    application = Application()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        await runtime.start()
        if jobs is not None:
            await jobs.start()
        desk = open_desk(runtime.settings.protection)
        application.attach(runtime, jobs, desk, tracing)
        yield
        if jobs is not None:
            await jobs.close()
        await runtime.close()
        desk.close()

    return Starlette(routes=[Mount("/", app=application)], lifespan=lifespan), runtime


@contextmanager
def running(bundle_dir: Path, **choices: Any) -> Iterator[tuple[TestClient, Runtime]]:
    """A client of the application, and the runtime behind it."""
    application, runtime = application_of(bundle_dir, **choices)
    with TestClient(application) as client:
        yield client, runtime


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it never came true")
