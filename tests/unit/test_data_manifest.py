from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.manifest import ManifestError, Utterance, read_manifest, write_manifest


def utterance(name: str = "a" * 32, **changes: Any) -> Utterance:
    row = Utterance(
        utterance_id=name,
        corpus="digits",
        shard="digits/shard-00000-000000000000.tar",
        offset=512,
        length=1_000,
        text="Größe: 7",
        normalised_text="grosse seven",
        normaliser="en-1",
        speaker="spk_000000000000",
        language="en",
        split="train",
        licence="CC0-1.0",
        consent=("eval", "train"),
        source="here",
        source_digest="sha256:0",
        native_format="wav/pcm_16",
        native_rate_hz=8_000,
        native_channels=2,
        duration_s=1.25,
        level_dbfs=-20.5,
        peak_dbfs=-3.0,
        clipping_ratio=0.0,
        dc_offset=0.001,
        snr_db=30.0,
        bandwidth_hz=4_000.0,
        speech_ratio=0.5,
    )
    return replace(row, **changes)


def test_rows_come_back_as_they_went(tmp_path: Path) -> None:
    rows = [utterance("b" * 32, duplicate_of="a" * 32), utterance(consent=(), text="")]
    write_manifest(tmp_path / "m.parquet", rows)
    assert read_manifest(tmp_path / "m.parquet") == rows


def test_an_empty_manifest_is_a_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.parquet", [])
    assert read_manifest(tmp_path / "m.parquet") == []


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    rows = [utterance(f"{i:032x}", text="x" * i) for i in range(500)]
    for name in ("one", "two"):
        write_manifest(tmp_path / name, list(rows))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_id_is_listed_once(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="listed twice"):
        write_manifest(tmp_path / "m.parquet", [utterance(), utterance()])
    assert not (tmp_path / "m.parquet").exists()


def test_a_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no manifest here. Mend: ingest"):
        read_manifest(tmp_path / "m.parquet")


def test_what_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_text("hello")
    with pytest.raises(ManifestError, match="no readable Parquet"):
        read_manifest(tmp_path / "m.parquet")


def test_somebody_elses_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="no Auricle manifest"):
        read_manifest(tmp_path / "m.parquet")


def rewritten(path: Path, change: Any) -> Path:
    write_manifest(path, [utterance()])
    pq.write_table(change(pq.read_table(path)), path)
    return path


def test_another_schema_version(tmp_path: Path) -> None:
    path = rewritten(
        tmp_path / "m.parquet",
        lambda table: table.replace_schema_metadata({"auricle.manifest.schema_version": "99"}),
    )
    with pytest.raises(ManifestError, match="schema 99, this program reads 1"):
        read_manifest(path)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "m.parquet", lambda table: table.drop_columns(["text", "snr_db"]))
    with pytest.raises(ManifestError, match="columns missing: text, snr_db"):
        read_manifest(path)


def test_a_column_of_another_type(tmp_path: Path) -> None:
    path = rewritten(
        tmp_path / "m.parquet",
        lambda table: table.set_column(
            table.schema.get_field_index("offset"), "offset", pa.array(["far"])
        ),
    )
    with pytest.raises(ManifestError, match="unusable type or value"):
        read_manifest(path)


def test_a_missing_value(tmp_path: Path) -> None:
    path = rewritten(
        tmp_path / "m.parquet",
        lambda table: table.set_column(
            table.schema.get_field_index("text"),
            pa.field("text", pa.string(), nullable=True),
            pa.array([None], pa.string()),
        ),
    )
    with pytest.raises(ManifestError, match="unusable type or value"):
        read_manifest(path)
