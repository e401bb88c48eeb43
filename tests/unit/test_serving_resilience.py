"""Under pressure something is given up and named; what fails again and again is left alone."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from features.bundle import Bundle
from features.decode import DecoderConfig
from features.priors import Prior, PriorKey, channel_of, write_view
from serving.admission.ladder import REFUSE, Ladder, LadderRules
from serving.admission.policy import NoRoom, Priority
from serving.engine.batcher import Batcher, Chunk
from serving.engine.breaker import Breaker
from serving.front.warm_start import WarmStart
from serving.metrics import ServiceMetrics
from serving.problems import ApiProblem
from serving.schema import Transcript
from tests.support_bundle import babble, make_bundle
from tests.support_service import running, wav

Floats = NDArray[np.float32]
RUNGS = ("no_language_model", "smaller_model")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def at(ladder: Ladder, clock: Clock, seconds: float, pressure: float) -> int:
    clock.now_s += seconds
    return ladder.observe(pressure)


def test_rungs_are_taken_one_by_one_while_the_pressure_lasts_and_left_more_slowly() -> None:
    clock = Clock()
    ladder = Ladder(RUNGS, LadderRules(up_s=2.0, down_s=10.0), clock=clock)
    levels = [at(ladder, clock, 1.0, 0.9) for _ in range(9)]
    assert levels == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert ladder.refusing and ladder.degradation == RUNGS, "refusing is no property of an answer"
    levels = [at(ladder, clock, 5.0, 0.0) for _ in range(8)]
    assert levels == [3, 3, 2, 2, 1, 1, 0, 0]
    assert not ladder.degradation


def test_a_short_peak_and_a_middling_pressure_change_nothing() -> None:
    clock = Clock()
    ladder = Ladder(RUNGS, clock=clock)
    assert at(ladder, clock, 1.0, 5.0) == 0
    assert at(ladder, clock, 1.0, 0.3) == 0
    assert at(ladder, clock, 100.0, 5.0) == 0, "nobody knows that it was high in between"
    assert at(ladder, clock, 2.0, 5.0) == 1
    assert at(ladder, clock, 100.0, 0.3) == 1, "between the marks the ladder stays where it is"


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 2)), max_size=60))
def test_the_level_moves_by_one_at_most_while_pressed_and_comes_back_to_nothing(
    seen: list[tuple[float, float]],
) -> None:
    clock, before = Clock(), 0
    ladder = Ladder(RUNGS, clock=clock)
    for seconds, pressure in seen:
        level = at(ladder, clock, seconds, pressure)
        assert 0 <= level <= len(RUNGS) + 1 and level - before <= 1
        assert set(ladder.degradation) == set(RUNGS[: min(level, len(RUNGS))])
        before = level
    at(ladder, clock, 1.0, 0.0)
    assert at(ladder, clock, 1000.0, 0.0) == 0
    assert REFUSE in ladder.rungs


@given(st.lists(st.sampled_from(["ok", "bad", "wait"]), max_size=60))
def test_a_breaker_spares_calls_only_after_failures_in_a_row_and_tries_once_a_rest(
    steps: list[str],
) -> None:
    clock = Clock()
    breaker = Breaker(failures=3, rest_s=5.0, clock=clock)
    failed, rests_until = 0, -1.0
    for step in steps:
        if step == "wait":
            clock.now_s += 2.0
            continue
        allowed = breaker.allows()
        assert allowed == (failed < 3 or clock.now_s >= rests_until)
        if failed >= 3 and allowed:
            assert not breaker.allows(), "one trial at a time"
        if not allowed:
            assert 0 < breaker.wait_s <= 5.0
            continue
        if step == "ok":
            breaker.succeeded()
            failed = 0
        else:
            breaker.failed()
            failed += 1
            rests_until = clock.now_s + 5.0


class Poisoned:
    """A model that fails on every call with a negative value in it."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def offline(self, pieces: Sequence[Floats]) -> list[Floats]:
        self.calls.append(len(pieces))
        if any(piece.min() < 0 for piece in pieces):
            raise RuntimeError("poison")
        return [piece * 2 for piece in pieces]

    def step(self, chunks: Sequence[Chunk]) -> list[Floats]:
        raise RuntimeError("no streams here")


def poisoned() -> Floats:
    return np.full((20, 2), -1.0, np.float32)


def sound() -> Floats:
    return np.full((20, 2), 3.0, np.float32)


def test_a_bad_row_fails_alone_and_its_neighbours_are_answered() -> None:
    async def scene() -> None:
        model = Poisoned()
        batcher = Batcher(model, ServiceMetrics(CollectorRegistry()))
        rows = [sound(), poisoned(), sound()]
        calls = [asyncio.ensure_future(batcher.infer(row, deadline_s=30)) for row in rows]
        await asyncio.sleep(0)
        batcher.start()
        first, bad, last = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(bad, ApiProblem) and bad.status == 500
        for answer in (first, last):
            assert not isinstance(answer, BaseException)
            assert float(answer.logp_TV[0, 0]) == 6.0
        assert model.calls == [3, 1, 1, 1]
        assert batcher.breaker.may_work
        await batcher.close()

    asyncio.run(scene())


def test_a_model_that_fails_on_everything_is_left_alone_and_tried_again() -> None:
    async def scene() -> None:
        clock, model = Clock(), Poisoned()
        batcher = Batcher(model, ServiceMetrics(CollectorRegistry()), clock=clock)
        batcher.start()
        for _ in range(5):
            with pytest.raises(ApiProblem, match="failed"):
                await batcher.infer(poisoned(), deadline_s=30)
        with pytest.raises(ApiProblem) as spared:
            await batcher.infer(sound(), deadline_s=30)
        assert (spared.value.status, spared.value.code) == (503, "engine_down")
        assert spared.value.retry_after_s == 5 and len(model.calls) == 5
        clock.now_s += 5.0
        await batcher.infer(sound(), deadline_s=30)
        await batcher.infer(sound(), deadline_s=30)
        await batcher.close()

    asyncio.run(scene())


def test_a_prior_view_that_is_always_late_is_spared_and_found_again(
    beam_dir: Path, tmp_path: Path
) -> None:
    config = Bundle.load(beam_dir).config
    size = len(config.norm.mean)
    key = PriorKey(
        tenant="default", speaker="s1", channel=channel_of(16_000),
        fingerprint=config.feature_fingerprint,
    )  # fmt: skip
    prior = Prior(mean_F=np.ones(size, np.float32), frames=1000)
    path = tmp_path / "priors.sqlite"
    write_view(path, [(key, prior.to_bytes())])
    clock = Clock()
    warm = WarmStart(config, path, deadline_ms=20.0)
    warm._breaker = Breaker(clock=clock)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")  # a lock that never ends: every look-up is late
    for _ in range(5):
        assert not warm.begin("s1", native_rate_hz=16_000).warm
    assert not warm._breaker.may_work
    writer.execute("ROLLBACK")
    assert not warm.begin("s1", native_rate_hz=16_000).warm, "not even asked"
    clock.now_s += 5.0
    warm._deadline_ms = 5_000.0
    assert warm.begin("s1", native_rate_hz=16_000).warm
    assert warm._breaker.may_work
    writer.close()
    warm.close()


@pytest.fixture(scope="module")
def beam_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    decoder = DecoderConfig(kind="beam", beam=4)
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", decoder=decoder)


def test_what_is_given_up_is_named_in_the_answer(beam_dir: Path) -> None:
    def ask() -> Transcript:
        answer = client.post(
            "/v1/audio/transcriptions",
            files={"file": ("a.wav", wav(babble(2.0)))},
            data={"model": "tiny", "response_format": "verbose_json"},
        )
        assert answer.status_code == 200, answer.text
        return Transcript.model_validate(answer.json()["auricle"])

    with running(beam_dir) as (client, runtime):
        assert ask().degradation is None
        runtime.entrance.ladder.level = 1
        degraded = ask()
        assert degraded.degradation == "greedy_decoding" and degraded.text
        assert "auricle_degradation_level 1.0" in client.get("/metrics").text
    with running(beam_dir, degrade=False) as (client, runtime):
        assert runtime.entrance.ladder.rungs == (REFUSE,)


def test_the_last_rung_refuses_new_streams_and_files_that_would_wait(beam_dir: Path) -> None:
    with running(beam_dir) as (_, runtime):
        entrance = runtime.entrance
        entrance.ladder.level = len(entrance.ladder.rungs)
        entrance.look()
        with pytest.raises(NoRoom):
            entrance.require_stream(0)
        entrance.policy.limit.seconds = 1.0
        place = entrance.policy.arrive("a", Priority.INTERACTIVE, 10.0)
        with pytest.raises(NoRoom):
            entrance.policy.arrive("a", Priority.INTERACTIVE, 10.0)
        entrance.policy.finish(place)
        assert entrance.policy.arrive("a", Priority.INTERACTIVE, 10.0)
