"""`auricle listen` and `auricle bench serve` against a real service."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines._load import arrivals, quantile
from serving.client import Client
from tests.support_bundle import babble, hush, make_bundle
from tests.support_live import served
from tests.support_service import pcm16, wav

SPEECH = np.concatenate([babble(1.2), hush(0.9)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    with served(bundle, max_streams=2) as (url, _):
        yield url


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "a recording.wav"
    path.write_bytes(wav(SPEECH))
    return path


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *map(str, words)]


def run(
    *words: object, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*words),
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def recorder(folder: Path, script: str) -> dict[str, str]:
    """An environment whose first recorder is this program."""
    folder.mkdir(exist_ok=True)
    program = folder / "parec"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def test_a_file_is_heard_at_the_speed_of_speech_and_told_message_by_message(
    url: str, recording: Path
) -> None:
    done = run("listen", "--file", recording, "--url", url, "--json")
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    results = [message for message in messages if message["type"] == "Results"]
    assert {message["is_final"] for message in results} == {True, False}
    assert messages[-1]["type"] == "Metadata"
    finals = [m["channel"]["alternatives"][0]["transcript"] for m in results if m["is_final"]]
    said = " ".join(text for text in finals if text)
    assert said and said == Client(url=url).stream(pcm16(SPEECH).tobytes(), rate_hz=16_000).text
    plain = run("listen", "--file", recording, "--url", url)
    assert plain.returncode == 0 and plain.stdout.startswith("0:0")
    assert " ".join(line.split("  ", 1)[1] for line in plain.stdout.splitlines()) == said


def test_ctrl_c_ends_the_microphone_and_still_brings_the_last_words(
    url: str, tmp_path: Path
) -> None:
    sound = tmp_path / "sound.pcm"
    sound.write_bytes(pcm16(SPEECH).tobytes())
    environment = recorder(tmp_path / "bin", f"cat '{sound}'; exec sleep 600")
    with subprocess.Popen(
        command("listen", "--url", url, "--json"),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert json.loads(first)["type"] == "Results"
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    messages = [json.loads(line) for line in rest.splitlines()]
    assert messages[-1]["type"] == "Metadata"
    assert any(message.get("is_final") for message in messages)


def test_a_recorder_that_fails_is_named_with_its_reason(url: str, tmp_path: Path) -> None:
    environment = recorder(tmp_path / "bin", "echo 'no such device' >&2; exit 1")
    done = run("listen", "--url", url, environment=environment)
    assert done.returncode == 2
    assert "parec: the recorder failed: no such device" in done.stderr and "--file" in done.stderr


def test_a_service_that_is_not_there_is_said_so(recording: Path) -> None:
    for words in (("listen", "--file"), ("bench", "serve", "--streams", "1")):
        done = run(*words, recording, "--url", "http://127.0.0.1:9")
        assert done.returncode == 2 and "no answer" in done.stderr
        assert "Traceback" not in done.stderr


def test_paced_streams_are_measured_and_the_refused_counted(url: str, recording: Path) -> None:
    load = ("bench", "serve", "--streams", "3", "--seconds", "1.5", "--url", url, "--json")
    done = run(*load, recording)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["answered"] >= 2 and report["refused"]["429"] >= 1 and not report["failed"]
    assert 0 < report["goodput_audio_s_per_s"] < 3
    assert report["final_after_stop_ms"]["n"] == report["answered"]
    assert report["generator_cpu_share"] > 0


def test_files_arrive_whatever_the_answers_and_a_broken_bound_is_status_3(
    url: str, recording: Path
) -> None:
    load = ("bench", "serve", "--rate", "6", "--seconds", "1", "--url", url, "--json", recording)
    done = run(*load, "--latency-p95-ms", "0.001")
    assert done.returncode == 3 and "latency_ms p95" in done.stderr
    report = json.loads(done.stdout)
    assert report["answered"] == report["latency_ms"]["n"]
    assert report["answered"] == len(arrivals(rate=6, seconds=1, seed=1))
    assert report["latency_ms"]["p50"]["point"] <= report["latency_ms"]["p99"]["point"]


def test_arrivals_are_poisson_in_number() -> None:
    counts = np.array([len(arrivals(rate=20, seconds=10, seed=seed)) for seed in range(300)])
    assert counts.mean() == pytest.approx(201, rel=0.03)  # the first arrival is at once
    assert counts.var() == pytest.approx(200, rel=0.35)


@given(st.lists(st.floats(0, 60), min_size=1, max_size=400), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_one_of_the_values_inside_its_interval(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    assert found is not None
    assert found.point in {round(value * 1000, 1) for value in values}
    assert found.low is None or found.low <= found.point
    assert found.high is None or found.point <= found.high


def test_an_interval_covers_the_true_quantile_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    truth = -np.log(0.05) * 1000  # of an exponential of mean 1 s
    covered = 0
    for _ in range(400):
        found = quantile(list(generator.exponential(1.0, 300)), 0.95)
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.99


def test_the_command_line_imports_neither_clients_nor_screens() -> None:
    code = (
        "import sys, pipelines.cli as cli; cli.build_parser(); "
        "print([m for m in ('websockets', 'rich', 'numpy', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
