"""The benchmark's figures hang together; how fast this machine is, is no test's business."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.errors import AuricleError
from tests.support_bundle import make_bundle
from tests.support_export import exported, recordings
from training.benchmark import measure_variants, median_interval


def test_variants_are_measured_side_by_side() -> None:
    folder = exported()[0]
    seen: list[tuple[int, int]] = []
    found = measure_variants(
        {"fp32": folder, "again": folder}, recordings(2, seed=1), repetitions=3, seed=1,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]
    first, again = found["fp32"], found["again"]
    assert first.file_speedup.point == 1.0 == first.stream_speedup.high
    assert again.file_speedup.low <= again.file_speedup.point <= again.file_speedup.high
    for figures in (first, again):
        assert figures.bytes == sum(
            (folder / name).stat().st_size for name in ("offline.onnx", "stream-640.onnx")
        )
        assert 0 < figures.file_rtf.low <= figures.file_rtf.point <= figures.file_rtf.high
        assert 0 < figures.chunk_p50_ms <= figures.chunk_p99_ms
        assert figures.load.load_s > 0 and figures.load.memory_mb > 0
        assert set(figures.figures()) >= {"variant", "bytes", "file_rtf", "stream_speedup"}


def test_streams_are_measured_in_the_chunks_that_were_exported(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny", chunk_ms=320)
    found = measure_variants({"it": folder}, recordings(1, seed=1), repetitions=1, seed=1)
    assert found["it"].chunk_ms == 320 and found["it"].stream_rtf.point > 0
    with pytest.raises(AuricleError, match="no stream graph for 640 ms, only \\[320\\]"):
        measure_variants({"it": folder}, recordings(1, seed=1), repetitions=1, seed=1, chunk_ms=640)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(AuricleError, match="needs a bundle"):
        measure_variants({}, recordings(1, seed=1), repetitions=1, seed=1)


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=20))
def test_the_median_lies_in_its_interval_and_the_interval_in_the_data(values: list[float]) -> None:
    interval = median_interval(values, seed=1)
    assert min(values) <= interval.low <= interval.point <= interval.high <= max(values)
