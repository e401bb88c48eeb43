import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.canonical import file_digest
from governance.errors import AuricleError, ConfigError
from governance.records import (
    Interval,
    SliceScore,
    StageRecord,
    plain,
    read_record,
    record_digest,
    write_record,
)

RECORD = StageRecord(
    stage="train",
    inputs={"split": "sha256:aa"},
    params={"steps": 3, "model": {"layers": 2}},
    figures={"loss": 0.25, "curve": [1.0, 0.5]},
    outputs={"checkpoint": "sha256:bb"},
    environment={"python": "3.11"},
    started_at="2026-01-01T00:00:00+00:00",
    wall_s=1.5,
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_a_written_record_reads_back_equal_and_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    digest = write_record(path, RECORD)
    assert read_record(path, stage="train") == RECORD
    assert json.loads(path.read_text())["figures"]["loss"] == 0.25
    assert digest == record_digest(RECORD) == file_digest(path)


@given(figures=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_figures_survive_the_round_trip(figures: dict[str, object]) -> None:
    record = StageRecord(stage="s", figures=figures, started_at="t", wall_s=0)
    assert StageRecord.from_json(record.to_json()) == record


def test_numpy_dataclasses_paths_and_tuples_become_plain() -> None:
    wer = Interval(low=0.1, point=0.2, high=0.3)
    score = SliceScore(name="snr", value="low", utterances=1, words=2, wer=wer)
    value = {
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "array": np.arange(2),
        "slices": (score,),
        "path": Path("a") / "b",
    }
    made = json.loads(json.dumps(plain(value)))
    assert made["scalar"] == 0.5 and made["count"] == 3 and made["flag"] is True
    assert made["array"] == [0, 1] and made["path"] == "a/b"
    assert SliceScore.from_json(made["slices"][0]) == score


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float64("nan")])
def test_a_number_that_json_cannot_hold_is_refused_by_its_place(value: float) -> None:
    record = StageRecord(stage="train", figures={"loss": [1.0, value]}, started_at="t", wall_s=0)
    with pytest.raises(AuricleError, match=r"train\.figures\.loss\.1"):
        record.to_json()


def test_an_interval_has_its_point_inside() -> None:
    with pytest.raises(ValueError, match="not an interval"):
        Interval(low=0.3, point=0.2, high=0.4)
    with pytest.raises(ValueError, match="not an interval"):
        Interval(low=0.1, point=math.nan, high=0.4)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"stage": None}, "missing field 'stage'"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"wall_s": "long"}, "'wall_s' is not a float"),
        ({"schema_version": 99}, "schema version 99"),
        ({"inputs": {"split": 1}}, "'inputs' maps names to text"),
    ],
)
def test_a_bad_record_is_refused_with_file_field_and_mend(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    value = json.loads(RECORD.to_json()) | change
    value = {key: entry for key, entry in value.items() if entry is not None}
    path = tmp_path / "train.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ConfigError) as caught:
        read_record(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value) and "Mend:" in str(caught.value)


def test_missing_foreign_and_garbled_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    with pytest.raises(AuricleError, match="not there"):
        read_record(path)
    write_record(path, RECORD)
    with pytest.raises(ConfigError, match="record of stage 'train', not of 'export'"):
        read_record(path, stage="export")
    path.write_text("{half")
    with pytest.raises(ConfigError, match="not JSON"):
        read_record(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_record(path)
