import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_data_duplicates import speechlike

from data.audio import decode
from data.corpus import CorpusError, CorpusOptions, CorpusReport, build_corpus
from data.manifest import Utterance, read_manifest
from data.shards import read_member
from governance.canonical import file_digest
from governance.errors import TamperError


def source(root: Path, count: int = 6, **changes: Any) -> Path:
    """A manifest corpus of ``count`` recordings, four of each speaker."""
    rows = []
    for seed in range(count):
        write(root / f"{seed}.wav", speechlike(seed, 1.0 + 0.1 * seed))
        row = {"id": f"u{seed}", "path": f"{seed}.wav", "text": f"Number {seed}!"}
        rows.append(row | {"speaker": f"person {seed // 4}", "split": "train"} | changes)
    return listed(root, rows)


def write(path: Path, samples: np.ndarray, rate_hz: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")


def listed(root: Path, rows: list[dict[str, Any]]) -> Path:
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def rows_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]


def build(root: Path, out: Path, **options: Any) -> tuple[CorpusReport, dict[str, Utterance]]:
    report = build_corpus("digits", root, out, options=CorpusOptions(**options))
    rows = read_manifest(out / "digits/manifest.parquet")
    return report, {row.text: row for row in rows}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_corpus_from_end_to_end(tmp_path: Path) -> None:
    root = source(tmp_path / "in")
    report, rows = build(root, tmp_path / "out")
    assert (report.accepted, report.known, report.total, report.problems) == (6, 0, 6, ())
    assert set(content(tmp_path / "out/digits")) == {
        "manifest.parquet",
        "datasheet.json",
        Path(report.shards[0]).name,
    }
    row = rows["Number 3!"]
    assert (row.normalised_text, row.split, row.native_format) == (
        "number three",
        "train",
        "wav/pcm_16",
    )
    assert row.speaker == rows["Number 0!"].speaker != rows["Number 4!"].speaker
    assert "person" not in row.speaker and row.source_digest == file_digest(root / "3.wav")
    assert row.duration_s == pytest.approx(1.3) and row.snr_db > 10
    flac = read_member(tmp_path / "out", row.shard, row.offset, row.length)
    assert np.array_equal(
        decode(flac, name="x").samples_TC, decode(root / "3.wav", name="x").samples_TC
    )
    sheet = json.loads((tmp_path / "out/digits/datasheet.json").read_text())
    assert (sheet["utterances"], sheet["speakers"], sheet["splits"]) == (6, 2, {"train": 6})


def test_native_rate_and_channels_are_kept(tmp_path: Path) -> None:
    stereo_TC = np.stack([speechlike(1, 1.0), speechlike(2, 1.0)], axis=1)
    write(tmp_path / "in/a.wav", stereo_TC, 44_100)
    _, rows = build(listed(tmp_path / "in", [{"path": "a.wav", "text": "hello"}]), tmp_path / "out")
    row = rows["hello"]
    assert (row.native_rate_hz, row.native_channels) == (44_100, 2)
    audio = decode(read_member(tmp_path / "out", row.shard, row.offset, row.length), name="x")
    assert (audio.rate_hz, audio.channels) == (44_100, 2)


def test_the_same_again_is_the_same_bytes(tmp_path: Path) -> None:
    root = source(tmp_path / "in")
    first, _ = build(root, tmp_path / "out")
    before = content(tmp_path / "out/digits")
    second, _ = build(root, tmp_path / "out")
    assert (second.accepted, second.known, second.updated) == (0, 6, 0)
    assert content(tmp_path / "out/digits") == before and second.digest == first.digest


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    root = source(tmp_path / "in")
    (root / "3.wav").write_bytes(b"")
    one, _ = build(root, tmp_path / "one", max_shard_bytes=60_000)
    two, _ = build(root, tmp_path / "two", max_shard_bytes=60_000, workers=2)
    assert len(one.shards) > 1 and one.problems == two.problems
    assert content(tmp_path / "one/digits") == content(tmp_path / "two/digits")


def test_more_data_goes_into_further_shards(tmp_path: Path) -> None:
    first, old_rows = build(source(tmp_path / "in", 4), tmp_path / "out")
    before = {name: file_digest(tmp_path / "out" / name) for name in first.shards}
    second, rows = build(source(tmp_path / "in", 6), tmp_path / "out")
    assert (second.accepted, second.known, second.total) == (2, 4, 6)
    assert {name: file_digest(tmp_path / "out" / name) for name in before} == before
    assert set(second.shards) > set(first.shards) and len(second.shards) == 2
    assert {text: rows[text] for text in old_rows} == old_rows
    for row in rows.values():
        flac = read_member(tmp_path / "out", row.shard, row.offset, row.length)
        assert decode(flac, name="x").duration_s == row.duration_s


def test_what_left_the_source_stays_in_the_corpus(tmp_path: Path) -> None:
    root = source(tmp_path / "in", 3)
    build(root, tmp_path / "out")
    report, rows = build(listed(root, rows_of(root)[:1]), tmp_path / "out")
    assert (report.known, report.total, len(rows)) == (1, 3, 3)


def test_a_withdrawn_consent_changes_the_manifest_alone(tmp_path: Path) -> None:
    root = source(tmp_path / "in", 3)
    first, _ = build(root, tmp_path / "out")
    described = rows_of(root)
    described[1] |= {"consent": ["eval"], "text": "Number ten!"}
    second, rows = build(listed(root, described), tmp_path / "out")
    assert (second.accepted, second.updated, second.shards) == (0, 1, first.shards)
    assert rows["Number ten!"].consent == ("eval",)
    assert rows["Number ten!"].normalised_text == "number ten"


def test_bad_recordings_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = source(tmp_path / "in", 8)
    (root / "0.wav").write_bytes(b"")
    whole = (root / "1.wav").read_bytes()
    (root / "1.wav").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(root / "2.wav", "w") as archive:
        archive.writestr("x", "y")
    (root / "3.wav").unlink()
    described = rows_of(root)
    described[4] |= {"text": "日本語"}
    report, rows = build(listed(root, described), tmp_path / "out")
    assert set(rows) == {f"Number {n}!" for n in (5, 6, 7)} and report.accepted == 3
    messages = {problem.item: problem.message for problem in report.refused}
    assert set(messages) == {f"manifest.jsonl:{line}" for line in (1, 2, 3, 4, 5)}
    assert "0.wav: is empty" in messages["manifest.jsonl:1"]
    assert "cut off" in messages["manifest.jsonl:2"]
    assert "zip archive" in messages["manifest.jsonl:3"]
    assert "missing" in messages["manifest.jsonl:4"]
    assert "letters" in messages["manifest.jsonl:5"]


def test_the_same_samples_twice_are_kept_once(tmp_path: Path) -> None:
    root = source(tmp_path / "in", 3)
    samples, rate_hz = soundfile.read(root / "1.wav", dtype="int16")
    soundfile.write(root / "copy.flac", samples, rate_hz)
    described = rows_of(root)
    described.append({"id": "same", "path": "copy.flac", "text": "Number 1!"})
    described.append({"id": "other", "path": "copy.flac", "text": "number two"})
    report, _ = build(listed(root, described), tmp_path / "out")
    assert report.accepted == 3
    same, other = report.problems
    assert (same.item, same.severity) == ("manifest.jsonl:4", "skipped")
    assert "exactly the samples of manifest.jsonl:2" in same.message
    assert (other.severity, other.mend) == ("refused", "decide which transcript is right")
    assert build(root, tmp_path / "out")[0].digest == report.digest


def test_near_duplicates_are_marked_and_kept(tmp_path: Path) -> None:
    root = source(tmp_path / "in", 3)
    build(root, tmp_path / "out")
    write(root / "louder.wav", speechlike(1, 1.1) * 1.7)
    described = [*rows_of(root), {"id": "louder", "path": "louder.wav", "text": "louder"}]
    report, rows = build(listed(root, described), tmp_path / "out")
    assert rows["louder"].duplicate_of == rows["Number 1!"].utterance_id
    assert not any(row.duplicate_of for text, row in rows.items() if text != "louder")
    (note,) = report.problems
    assert note.severity == "noted" and "manifest.jsonl:2" in note.message
    plain, rows = build(root, tmp_path / "plain", near_duplicates=False)
    assert not plain.problems and not rows["louder"].duplicate_of


def test_segments_are_cut_out_of_their_recording(tmp_path: Path) -> None:
    root = tmp_path / "in"
    samples_T = speechlike(1, 4.0)
    write(root / "r.wav", samples_T)
    (root / "wav.scp").write_text("r r.wav\n")
    (root / "text").write_text("u1 one\nu2 two\nu3 three\n")
    (root / "segments").write_text("u1 r 0.5 1.5\nu2 r 2 -1\nu3 r 9 10\n")
    report, rows = build(root, tmp_path / "out")
    assert (rows["one"].duration_s, rows["two"].duration_s) == (1.0, 2.0)
    assert rows["one"].source_digest != rows["two"].source_digest
    assert "behind its end" in report.refused[0].message
    flac = read_member(tmp_path / "out", rows["one"].shard, rows["one"].offset, rows["one"].length)
    assert np.abs(decode(flac, name="x").samples_TC[:, 0] - samples_T[8_000:24_000]).max() < 1e-4
    again, _ = build(root, tmp_path / "out")
    assert (again.known, again.digest) == (2, report.digest)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_corpus(
        "digits", source(tmp_path / "in", 3), tmp_path, progress=lambda *step: seen.append(step)
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_corpus_without_one_good_recording(tmp_path: Path) -> None:
    root = source(tmp_path / "in", 1)
    (root / "0.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"none of its recordings.*0\.wav: is empty") as refused:
        build(root, tmp_path / "out")
    message = str(refused.value)
    assert "(1 problem; the first: " in message
    assert message.count("Mend: ") == 1 and message.endswith(f"Mend: {refused.value.mend}")
    (root / "manifest.jsonl").write_text("")
    with pytest.raises(CorpusError, match=r"lists no recording. Mend: add recordings"):
        build(root, tmp_path / "out")


def test_a_bad_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no corpus name"):
        build_corpus("../x", tmp_path, tmp_path)


def test_a_missing_or_changed_shard_is_noticed(tmp_path: Path) -> None:
    root = source(tmp_path / "in", 2)
    report, rows = build(root, tmp_path / "out")
    shard = tmp_path / "out" / report.shards[0]
    row = next(iter(rows.values()))
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(TamperError, match="dvc pull"):
        read_member(tmp_path / "out", row.shard, row.offset, row.length)
    shard.unlink()
    with pytest.raises(CorpusError, match="it is missing"):
        build(root, tmp_path / "out")
