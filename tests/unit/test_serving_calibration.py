"""Calibration: every bucket is warm before the service is ready, and what was measured is kept."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.bundle import Bundle
from serving.engine.batcher import BatchLimits
from serving.engine.calibration import Calibration, calibrated, read_calibration
from serving.engine.engine import Engine, EngineOptions
from tests.support_bundle import make_bundle
from tests.support_service import running

Floats = NDArray[np.float32]


class Timed(Engine):
    """The engine, on a clock that passes by a known rule: a fixed part and a part per padded frame."""

    now_s = 0.0
    fixed_s, per_frame_s = 0.005, 0.0002
    row_price = 1.0  # of every further row, as a share of the first

    def offline(self, pieces: Sequence[Floats]) -> list[Floats]:
        self.calls.append((len(pieces[0]), len(pieces)))
        rows = 1 + self.row_price * (len(pieces) - 1)
        self.now_s += self.fixed_s + self.per_frame_s * len(pieces[0]) * rows
        return super().offline(pieces)

    def step(self, chunks: Sequence[object]) -> list[Floats]:
        self.now_s += 0.05 * len(chunks)
        return super().step(chunks)  # type: ignore[arg-type]

    calls: list[tuple[int, int]]


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def timed(bundle_dir: Path, row_price: float) -> Timed:
    engine = Timed(Bundle.load(bundle_dir), EngineOptions(slots=16))
    engine.row_price, engine.calls = row_price, []
    return engine


def measure(engine: Timed, cache: Path | None = None) -> Calibration:
    return calibrated(engine, cache, clock=lambda: engine.now_s)


def test_the_price_and_the_rows_of_a_known_machine_are_found(bundle_dir: Path) -> None:
    found = measure(timed(bundle_dir, row_price=0.2))
    assert found.per_call_s == pytest.approx(0.005, rel=1e-6)
    assert found.per_audio_s == pytest.approx(0.02, rel=1e-6)
    assert found.max_rows == 16, "every doubling pays"
    assert found.max_stream_rows == 2, "4 rows of 50 ms are more than half of the 320 ms of a call"


def test_a_machine_that_gains_nothing_by_rows_gets_small_batches(bundle_dir: Path) -> None:
    engine = timed(bundle_dir, row_price=1.0)
    engine.fixed_s = 0.0
    assert measure(engine).max_rows == 1


def test_every_bucket_is_warm_and_a_restart_measures_nothing(
    bundle_dir: Path, tmp_path: Path
) -> None:
    first = measure(timed(bundle_dir, row_price=0.2), tmp_path)
    again = timed(bundle_dir, row_price=9.0)
    assert measure(again, tmp_path) == first
    warmed = {frames for frames, _ in again.calls}
    assert set(BatchLimits().bucket_frames) <= warmed
    assert (400, first.max_rows) in again.calls, "the full batch is warm too"
    assert len(again.calls) == 2 * len(BatchLimits().bucket_frames) + 1
    assert again.slab.in_use == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"max_rows": 3}', json.dumps({"x": 1})])
def test_a_damaged_file_is_measured_again(content: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    assert read_calibration(path) is None


def test_another_bundle_or_thread_count_is_another_measurement(
    bundle_dir: Path, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", chunk_ms=320)
    cache = tmp_path / "cache"
    measure(timed(bundle_dir, 0.2), cache)
    measure(timed(other, 0.2), cache)
    assert len(list(cache.iterdir())) == 2


def test_a_service_starts_with_what_was_measured(bundle_dir: Path, tmp_path: Path) -> None:
    with running(bundle_dir, cache_dir=tmp_path) as (_, runtime):
        (kept,) = tmp_path.iterdir()
        found = read_calibration(kept)
        assert found is not None
        assert runtime.batcher._limits == found.limits()
        assert runtime.entrance.turnstile.costs.price.per_audio_s == found.per_audio_s


def test_the_doctor_shows_what_was_kept(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.doctor import _calibration

    found = measure(timed(bundle_dir, row_price=0.2), tmp_path)
    (tmp_path / "calibration-bad.json").write_text("{}")
    monkeypatch.setenv("AURICLE_CACHE", str(tmp_path))
    kept, bad = sorted(_calibration(), key=lambda finding: finding.level, reverse=True)
    assert f"{found.max_rows} rows of files" in kept.detail and kept.level == "ok"
    assert bad.level == "note" and "measures again" in bad.mend
