"""The real thing: a bento is built, BentoML serves it, real clients talk to it, signals end it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from serving.client import Client, ServiceError
from serving.loading import load_recognizer
from serving.packaging.bento import BuiltBento, build_bento, requirements
from serving.packaging.closure import import_closure
from serving.packaging.launch import serve_command, serve_environment
from serving.recognizer import AudioRequest
from serving.settings import ServeSettings
from tests.support_bundle import babble, hush, make_bundle
from tests.support_service import pcm16

START_LIMIT_S = 120
SPEECH = np.concatenate([babble(2.5), hush(1.5), babble(1.5, seed=5)])


@dataclass(frozen=True, kw_only=True)
class Server:
    process: "subprocess.Popen[bytes]"
    client: Client
    log: Path

    def workers(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))


def start(
    command: list[str], environment: dict[str, str], cwd: Path, port: int, log: Path
) -> Server:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdout=sink, stderr=sink, start_new_session=True
        )
    server = Server(process=process, client=Client(url=f"http://127.0.0.1:{port}"), log=log)
    try:
        server.client.wait_ready(START_LIMIT_S, alive=lambda: process.poll() is None)
    except ServiceError as error:
        stop(server)
        raise AssertionError(log.read_text()) from error
    return server


def stop(server: Server) -> None:
    if server.process.poll() is None:
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bentoml-home")


def serve_source(bundle_dir: Path, home: Path, log: Path) -> Server:
    port = free_port()
    environment = serve_environment(os.environ, bundle_dir=bundle_dir, bentoml_home=home)
    return start(serve_command(port=port), environment, Path.cwd(), port, log)


@pytest.fixture(scope="module")
def bento(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltBento:
    return build_bento(bundle_dir, build_root=tmp_path_factory.mktemp("build with space"))


def speech_file(folder: Path) -> Path:
    path = folder / "speech.flac"
    soundfile.write(path, pcm16(SPEECH), 16_000, format="FLAC", subtype="PCM_16")
    return path


@pytest.mark.slow
def test_real_clients_metrics_and_a_stop_in_the_middle_of_a_stream(
    bundle_dir: Path, home: Path, tmp_path: Path
) -> None:
    import openai

    server = serve_source(bundle_dir, home, tmp_path / "log")
    try:
        path = speech_file(tmp_path)
        recognizer = load_recognizer(ServeSettings(bundle_dir=bundle_dir))
        (direct,) = recognizer.recognize([AudioRequest(content=path)])
        assert direct.transcript is not None
        expected = direct.transcript.text

        sdk = openai.OpenAI(base_url=server.client.url + "/v1", api_key="unused", max_retries=0)
        with path.open("rb") as sound:
            verbose = sdk.audio.transcriptions.create(
                file=sound,
                model="tiny",
                response_format="verbose_json",
                timestamp_granularities=["word", "segment"],
            )
        assert verbose.text == expected and verbose.duration == pytest.approx(5.5)
        assert " ".join(word.word for word in verbose.words) == expected
        assert [entry.id for entry in sdk.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError), path.open("rb") as sound:
            sdk.audio.transcriptions.create(file=sound, model="other")
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.audio.transcriptions.create(file=("x.wav", b""), model="tiny")
        assert refused.value.param == "file"

        assert server.client.transcribe(path, model="tiny").text == expected
        streamed = server.client.stream(pcm16(SPEECH).tobytes(), rate_hz=16_000)
        assert streamed.text == expected and streamed.partials > 0
        assert streamed.close_code == 1000 and streamed.metadata is not None

        status, page = server.client._request("GET", "/metrics", None, {})
        text = page.decode()
        assert status == 200
        assert 'auricle_model_seconds_count{mode="file"} 2.0' in text
        assert 'auricle_requests_total{outcome="ok",route="listen"} 1.0' in text
        assert re.search(r"^auricle_streams_open\{pid=\"\d+\"\} 0.0$", text, re.MULTILINE)
        _stop_during_a_stream(server)
        log = server.log.read_text()
        assert "Traceback" not in log
        assert not any(len(word) > 5 and word in log for word in expected.split())
        assert "speech.flac" not in log
    finally:
        stop(server)


def _stop_during_a_stream(server: Server) -> None:
    """SIGTERM to the supervisor, as `make down` sends it: the final comes, then everybody goes."""
    workers = server.workers()
    begun = threading.Event()
    timer = threading.Thread(
        target=lambda: begun.wait(30) and server.process.send_signal(signal.SIGTERM)
    )
    timer.start()
    endless = pcm16(babble(60.0)).tobytes()
    result = server.client.stream(
        endless, rate_hz=16_000, paced=True, on_message=lambda message: begun.set()
    )
    timer.join()
    assert result.close_code == 1012
    assert result.finals and result.finals[-1]["channel"]["alternatives"][0]["transcript"]
    assert result.metadata is not None and 0 < result.metadata["duration"] < 60
    assert server.process.wait(40) is not None
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


@pytest.mark.slow
def test_a_killed_supervisor_leaves_nobody_on_the_port(
    bundle_dir: Path, home: Path, tmp_path: Path
) -> None:
    server = serve_source(bundle_dir, home, tmp_path / "log")
    try:
        workers = server.workers()
        assert workers
        server.process.kill()
        server.process.wait(10)
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive
        assert not server.client.is_ready()
    finally:
        stop(server)


@pytest.mark.slow
def test_the_bento_is_lean_and_serves_by_itself(
    bento: BuiltBento, bundle_dir: Path, home: Path, tmp_path: Path
) -> None:
    names = {
        path.relative_to(bento.folder).as_posix()
        for path in bento.folder.rglob("*")
        if path.is_file()
    }
    modules = {name for name in names if name.endswith(".py")}
    assert "src/serving/service.py" in modules and "src/features/fbank.py" in modules
    assert not any(
        name.startswith(("src/training", "src/pipelines", "src/tests")) for name in names
    )
    assert (
        "src/serving/packaging/bento.py" not in modules
        and "src/features/store_client.py" not in modules
    )
    assert not any(name.endswith((".wav", ".flac", ".tar", ".parquet", ".pyc")) for name in names)
    bundle_bytes = sum(path.stat().st_size for path in bundle_dir.iterdir())
    assert bento.size_bytes < bundle_bytes + 1_000_000
    pins = (bento.folder / "env/python/requirements.txt").read_text()
    assert "onnxruntime==" in pins and "bentoml==" in pins
    heavy = ("torch", "lightning", "mlflow", "feast", "pandas", "dvc", "index-url", "://")
    assert not any(word in pins for word in heavy)

    port = free_port()
    environment = serve_environment(os.environ, bundle_dir=None, bentoml_home=home)
    environment.pop("PYTHONPATH", None)
    environment.pop("AURICLE_BUNDLE", None)
    command = serve_command(port=port, target=str(bento.folder))
    server = start(command, environment, tmp_path, port, tmp_path / "log")
    try:
        (entry,) = server.client.models()
        assert entry["id"] == "tiny"
        transcript = server.client.transcribe(speech_file(tmp_path), model="tiny")
        assert transcript.text
        opened = {file for worker in server.workers() for file in map(str, worker.memory_maps())}
        assert not any("torch" in file for file in opened)
    finally:
        stop(server)


@pytest.mark.slow
def test_equal_content_is_the_same_bento_and_the_gpu_variant_its_own(
    bento: BuiltBento, bundle_dir: Path
) -> None:
    build_root = bento.folder.parents[3]
    again = build_bento(bundle_dir, build_root=build_root)
    assert again == bento
    gpu = build_bento(bundle_dir, build_root=build_root, variant="gpu", model_version="7")
    assert gpu.tag != bento.tag
    pins = (gpu.folder / "env/python/requirements.txt").read_text()
    assert "onnxruntime-gpu[cuda,cudnn]==" in pins and "\nonnxruntime==" not in pins
    document = (gpu.folder / "bento.yaml").read_text()
    assert "AURICLE_PROVIDER" in document and "cuda" in document
    containers = [(b.folder / "env/docker/Dockerfile").read_text() for b in (bento, gpu)]
    assert ["NVIDIA_DRIVER_CAPABILITIES=compute,utility" in text for text in containers] == [
        False,
        True,
    ]


def test_the_service_reaches_no_trainer_and_pins_all_it_names() -> None:
    files, others = import_closure("serving.service", Path.cwd())
    assert Path("serving/streaming/streams.py") in files and Path("data/audio.py") in files
    assert not any(path.parts[0] in ("training", "pipelines") for path in files)
    foreign = {name for name in others if name not in sys.stdlib_module_names}
    assert foreign == {
        "numpy", "soundfile", "av", "soxr", "onnxruntime", "bentoml", "starlette", "pydantic",
        "prometheus_client", "h11", "obstore", "psycopg", "redis", "cryptography",
        "opentelemetry", "uvicorn", "python_multipart",
        "faster_whisper", "ctranslate2",  # of adopted models alone, imported when one is given
    }  # fmt: skip
    assert all("==" in pin for pin in requirements("cpu"))


def test_a_service_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    client = Client(url=f"http://127.0.0.1:{free_port()}")
    assert not client.is_ready()
    with pytest.raises(ServiceError, match="no answer"):
        client.transcribe(speech_file(tmp_path), model="tiny")
    with pytest.raises(ServiceError, match="ended"):
        client.wait_ready(5, alive=lambda: False)


def test_importing_the_service_in_a_fresh_process_is_light(bundle_dir: Path, home: Path) -> None:
    code = (
        "import sys, json, serving.service; "
        "print(json.dumps([m for m in ('onnxruntime', 'av', 'torch') if m in sys.modules]))"
    )
    environment = serve_environment(os.environ, bundle_dir=bundle_dir, bentoml_home=home)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
