"""Several workers follow one wish: through the folder, through real processes, back when refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry

from benchmarks._report import Page
from benchmarks.swap import exchange, judge
from features.bundle import Bundle, BundleError
from features.spec import FeatureSpec
from governance.errors import AuricleError
from pipelines.cli import main
from serving.loading import load_runtime
from serving.metrics import ServiceMetrics
from serving.runtime import Runtime
from serving.settings import ServeSettings
from serving.swap.ask import ask
from serving.swap.follow import Follower, load_wanted
from serving.swap.live_folder import LiveFolder, Seat, Version, WorkerWord
from tests.support_bundle import make_bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions, and one of another front end."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "a": make_bundle(folder / "a"),
        "b": make_bundle(folder / "b", seed=12),
        "strange": make_bundle(folder / "strange", spec=FeatureSpec(high_hz=7000.0)),
    }


def settings_of(bundle: Path, live: Path) -> ServeSettings:
    return ServeSettings(
        bundle_dir=bundle, model_version="a", live_dir=live, cache_dir=bundle.parent / "cache"
    )


def metrics() -> ServiceMetrics:
    return ServiceMetrics(CollectorRegistry())


@contextmanager
def workers(bundle: Path, live: Path, count: int = 2) -> Iterator[list[Runtime]]:
    """Followers with runtimes of their own on one event loop: what each worker process has."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runtimes = [load_runtime(settings_of(bundle, live), metrics()) for _ in range(count)]
    followers = [Follower(runtime, live) for runtime in runtimes]

    async def begin() -> None:
        for runtime, follower in zip(runtimes, followers, strict=True):
            await runtime.start()
            follower.start()

    async def end() -> None:
        for runtime, follower in zip(runtimes, followers, strict=True):
            await follower.close()
            await runtime.close()

    try:
        asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
        yield runtimes
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def served(runtimes: list[Runtime]) -> set[str]:
    return {runtime.model.facts.version for runtime in runtimes}


def test_every_worker_follows_and_says_so(
    bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = LiveFolder(tmp_path / "live")
    with workers(bundles["a"], live.folder) as runtimes:
        words = ask(live, bundles["b"], version="b")
        assert served(runtimes) == {"b"} and len(words) == 2
        assert {word.serves.digest for word in words} == {Bundle.load(bundles["b"]).bundle_digest}
        again = ask(live, bundles["b"], version="b")
        assert {word.outcome for word in again} == {"serving"}
        command = ["swap", str(bundles["a"]), "--version", "9", "--live", str(live.folder)]
        assert main([*command, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [worker["version"] for worker in told["workers"]] == ["9", "9"]
        assert served(runtimes) == {"9"}
        text = runtimes[0].metrics.exposition().decode()
        assert 'auricle_swaps_total{outcome="done"} 2.0' in text
    assert not list(live.folder.glob("worker-*")), "who ends leaves its seat"
    assert main(command) == 2
    assert "no worker" in capsys.readouterr().err


def test_a_refusal_is_told_and_all_serve_what_they_served(
    bundles: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = LiveFolder(tmp_path / "live")
    with workers(bundles["a"], live.folder) as runtimes:
        assert main(["swap", str(bundles["strange"]), "--live", str(live.folder)]) == 2
        said = capsys.readouterr().err
        assert "high_hz" in said and "serves a as before" in said and "Traceback" not in said
        assert served(runtimes) == {"a"} and all(runtime.ready for runtime in runtimes)
        wanted = live.wanted()
        assert wanted is not None and wanted.model.version == "a"
        assert {word.outcome for word in live.words()} == {"serving"}
        with pytest.raises(BundleError):
            ask(live, tmp_path / "nothing")
        assert live.wanted() == wanted, "what is no bundle is not even wished for"
        refused = 'auricle_swaps_total{outcome="refused"} 1.0'
        assert any(refused in runtime.metrics.exposition().decode() for runtime in runtimes)


def test_one_that_refuses_takes_the_others_back(bundles: dict[str, Path], tmp_path: Path) -> None:
    live = LiveFolder(tmp_path / "live")
    with workers(bundles["a"], live.folder, count=1) as runtimes:
        seat, serves = Seat(live), live.words()[0].serves
        looks = 0

        def pause(seconds: float) -> None:
            """A second worker that takes its time, and refuses once the first has swapped."""
            nonlocal looks
            looks += 1
            threading.Event().wait(seconds)
            wanted = live.wanted()
            assert wanted is not None
            back = wanted.model == serves
            if back or served(runtimes) == {"b"}:
                say(wanted.id, refused=not back)

        def say(answers: str, *, refused: bool) -> None:
            seat.say(
                WorkerWord(
                    worker=seat.id,
                    answers=answers,
                    outcome="refused" if refused else "serving",
                    serves=serves,
                    reason="no memory" if refused else "",
                )
            )

        say("", refused=False)
        with pytest.raises(AuricleError, match="no memory"):
            ask(live, bundles["b"], version="b", sleep=pause)
        assert looks and served(runtimes) == {"a"}
        seat.leave()


def test_a_worker_that_starts_later_begins_with_what_is_wanted(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    live = LiveFolder(tmp_path / "live")
    base = settings_of(bundles["a"], live.folder)
    old = Version(bundle=str(bundles["a"]), version="a", digest="")
    live.want(Version(bundle=str(bundles["b"]), version="b", digest=""), old)
    assert load_wanted(base, metrics()).model.facts.version == "b"
    live.want(Version(bundle=str(tmp_path / "gone"), version="c", digest=""), old)
    assert load_wanted(base, metrics()).model.facts.version == "a"
    (live.folder / "wanted.json").write_text("{")
    assert load_wanted(base, metrics()).model.facts.version == "a"
    live.forget()
    assert live.stamp() is None and live.wanted() is None


def test_what_a_killed_worker_said_counts_no_more(tmp_path: Path) -> None:
    live = LiveFolder(tmp_path / "live")
    code = (
        "import pathlib, sys, time\n"
        "from serving.swap.live_folder import LiveFolder, Seat, Version, WorkerWord\n"
        "seat = Seat(LiveFolder(pathlib.Path(sys.argv[1])))\n"
        "serves = Version(bundle='x', version='1', digest='d')\n"
        "seat.say(WorkerWord(worker=seat.id, answers='', outcome='serving', serves=serves))\n"
        "print('there', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(live.folder)], stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    (word,) = live.words()
    assert word.serves.version == "1" and word.worker.startswith(f"{process.pid}-")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert not psutil.pid_exists(process.pid) and live.words() == []
    assert not list(live.folder.glob("worker-*"))


def test_two_swaps_at_once_are_one_and_a_refusal(bundles: dict[str, Path], tmp_path: Path) -> None:
    live = LiveFolder(tmp_path / "live")
    with live.turn(), pytest.raises(AuricleError, match="under way"):
        ask(live, bundles["a"])


@pytest.mark.slow
def test_swaps_under_load_in_two_workers_fail_nobody(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    load, swapped, models = exchange((bundles["a"], bundles["b"]), tmp_path, swaps=4, workers=2)
    page = Page(name="swap", title="swaps")
    judge(page, load, swapped, models, workers=2)
    missed = [(bar.what, bar.measured) for bar in page.bars if bar.met is False]
    assert not missed and not load.failures and len(swapped) == 4
