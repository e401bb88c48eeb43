"""Some of what `benchmarks.fuzz` sends by the ten thousand: malformed bodies, frames, recordings."""

import asyncio
import logging
from pathlib import Path

import pytest

from benchmarks._malformed import CANARY, case
from benchmarks._storm import storm
from serving.client import Client
from tests.support_bundle import babble, make_bundle
from tests.support_live import served
from tests.support_service import pcm16

SEED, CASES = 11, 270


def test_a_case_is_the_same_for_ever() -> None:
    assert [case(1, n) for n in range(30)] == [case(1, n) for n in range(30)]
    assert case(1, 5) != case(2, 5)


@pytest.mark.slow
def test_malformed_input_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pcm = pcm16(babble(1.0)).tobytes()
    with served(make_bundle(tmp_path / "tiny")) as (url, runtime):
        client = Client(url=url, timeout_s=60)
        before = client.stream(pcm, rate_hz=16_000).text
        found = asyncio.run(storm(int(url.rpartition(":")[2]), SEED, iter(range(CASES))))
        assert found.done == CASES and not found.failures
        assert len(found.answers) > 20, "the cases are of many kinds and outcomes"
        assert client.stream(pcm, rate_hz=16_000).text == before
        assert not runtime.entrance.files
    ours = [one for one in caplog.records if one.name.startswith(("auricle", "asyncio"))]
    assert ours and not any(CANARY in str(vars(one)) for one in ours)
    assert not any(one.message == "request_failed" for one in ours)
