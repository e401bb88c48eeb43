import json
from pathlib import Path
from typing import Any

import pytest

from data.sources.detect import detect_layout, scan
from data.sources.item import Scan, SourceError, SourceItem, SourceOptions, split_named


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read by a scan")


def manifest(root: Path, *rows: Any) -> Path:
    root.mkdir(exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (root / "manifest.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return root


def problems(found: Scan) -> list[tuple[str, str]]:
    return [(problem.item, problem.message) for problem in found.problems]


def by_id(found: Scan) -> dict[str, SourceItem]:
    return {item.source_id: item for item in found.items}


def test_manifest_fields_and_defaults(tmp_path: Path) -> None:
    touch(tmp_path / "audio/a.flac", tmp_path / "audio/b.flac")
    full = {
        "id": "a",
        "path": "audio/a.flac",
        "text": " Hello ",
        "speaker": "anna",
        "language": "fr",
        "split": "validation",
        "licence": "CC0-1.0",
        "source": "the web",
        "consent": ["train", "demo", "train"],
    }
    bare = {"id": "b", "path": "audio/b.flac", "text": "hi", "speaker": None}
    found = scan(manifest(tmp_path, full, bare), options=SourceOptions(licence="MIT"))
    assert found.layout == "manifest" and found.problems == []
    a, b = found.items
    assert (a.text, a.speaker, a.language, a.split) == ("Hello", "anna", "fr", "dev")
    assert (a.licence, a.source, a.consent) == ("CC0-1.0", "the web", ("demo", "train"))
    assert (b.speaker, b.language, b.split, b.licence) == ("", "en", "", "MIT")
    assert (b.source, b.consent) == (tmp_path.name, ("eval", "train"))


def test_each_bad_row_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "b.wav")
    good = {"id": "a", "path": "a.wav", "text": "hello"}
    found = scan(
        manifest(
            tmp_path,
            good,
            b'{"id": "x", "path": "a.wav", "text": "caf\xe9"}',
            b"{broken",
            [1, 2],
            {"id": "no path", "text": "x"},
            {"id": "a", "path": "b.wav", "text": "again"},
            {"id": "c", "path": "c.wav", "text": "missing"},
            {"id": "d", "path": "b.wav", "text": "  "},
            {"id": "e", "path": "b.wav", "text": 7},
            {"id": "f", "path": "b.wav", "text": "x", "split": "holdout"},
            {"id": "g", "path": "b.wav", "text": "x", "consent": "train"},
            {"id": "last", "path": "b.wav", "text": "good"},
        )
    )
    assert [item.source_id for item in found.items] == ["a", "last"]
    expected = [
        (2, "UTF-8"),
        (3, "not JSON"),
        (4, "not a JSON object"),
        (5, "names no audio"),
        (6, "already used at manifest.jsonl:1"),
        (7, "c.wav is missing"),
        (8, "no transcript"),
        (9, '"text" holds int, not text'),
        (10, "'holdout' is unknown"),
        (11, "consent is not a list"),
    ]
    assert len(found.problems) == len(expected)
    for (line, what), (item, message) in zip(expected, problems(found), strict=True):
        assert item == f"manifest.jsonl:{line}" and what in message
    assert all(problem.severity == "refused" and problem.mend for problem in found.problems)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../b.wav", "x/../../b.wav", "C:\\b.wav", "..\\b.wav"]
)
def test_a_manifest_cannot_reach_out_of_its_folder(tmp_path: Path, path: str) -> None:
    touch(tmp_path / "b.wav")
    found = scan(manifest(tmp_path / "corpus", {"id": "a", "path": path, "text": "x"}))
    assert not found.items and "leads out of the corpus" in found.problems[0].message


def test_noise_is_skipped_and_not_refused(tmp_path: Path) -> None:
    touch(tmp_path / "n.wav")
    row = {"id": "n", "path": "n.wav", "text": "", "kind": "noise"}
    (problem,) = scan(manifest(tmp_path, row)).problems
    assert problem.severity == "skipped" and problem.message == "is noise, not speech"


def test_a_name_that_no_disk_takes_is_a_missing_file(tmp_path: Path) -> None:
    found = scan(manifest(tmp_path, {"id": "a", "path": "x" * 5_000, "text": "x"}))
    assert "is missing" in found.problems[0].message


def test_librispeech(tmp_path: Path) -> None:
    folder = tmp_path / "dev-clean/84/121123"
    touch(
        folder / "84-121123-0000.flac",
        folder / "84-121123-0001.flac",
        folder / "84-121123-0009.flac",
    )
    (folder / "84-121123.trans.txt").write_text(
        "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN LESS\n84-121123-0002 GONE\n"
    )
    found = scan(tmp_path)
    assert found.layout == "librispeech"
    first = by_id(found)["84-121123-0000"]
    assert (first.text, first.speaker, first.split) == ("GO DO YOU HEAR", "84", "dev")
    assert first.origin == "dev-clean/84/121123/84-121123.trans.txt:1"
    (gone, untold) = problems(found)
    assert gone[0].endswith(":3") and "missing" in gone[1]
    assert untold == ("dev-clean/84/121123/84-121123-0009.flac", "has no transcript")


def common_voice(root: Path, **tables: list[str]) -> Path:
    touch(*(root / f"clips/{name}.mp3" for name in "abcd"))
    for name, rows in tables.items():
        header = "client_id\tpath\tsentence\tup_votes\tlocale"
        (root / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
    return root


def test_common_voice(tmp_path: Path) -> None:
    common_voice(
        tmp_path,
        train=['s1\ta.mp3\tHe said "go".\t2\ten', "s1\tnone.mp3\tx\t2\ten", "broken"],
        test=["s2\tb.mp3\tBonjour\t2\tfr", "s2\ta.mp3\tagain\t2\ten", "s3\t../x.mp3\tx\t2\ten"],
        validated=["s9\tc.mp3\tnot used\t2\ten"],
    )
    found = scan(tmp_path)
    assert found.layout == "common-voice"
    items = by_id(found)
    assert set(items) == {"a.mp3", "b.mp3"}
    assert (items["a.mp3"].text, items["a.mp3"].speaker) == ('He said "go".', "s1")
    assert (items["b.mp3"].split, items["b.mp3"].language) == ("test", "fr")
    assert [item for item, _ in problems(found)] == [
        "train.tsv:3",
        "train.tsv:4",
        "test.tsv:3",
        "test.tsv:4",
    ]


def test_common_voice_without_splits(tmp_path: Path) -> None:
    common_voice(tmp_path, validated=["s9\tc.mp3\tyes\t2\ten"])
    (item,) = scan(tmp_path).items
    assert item.split == ""


def test_common_voice_without_its_header(tmp_path: Path) -> None:
    touch(tmp_path / "clips/a.mp3")
    (tmp_path / "train.tsv").write_text("id\tfile\ttext\n")
    with pytest.raises(SourceError, match=r"train.tsv:1.*client_id, path, sentence"):
        scan(tmp_path)


def test_kaldi(tmp_path: Path) -> None:
    touch(tmp_path / "train/wav/r1.wav", tmp_path / "train/wav/r2.wav")
    train = tmp_path / "train"
    (train / "wav.scp").write_text(
        "r1 wav/r1.wav\nr2 wav/r2.wav\nr3 sph2pipe -f wav x.sph |\nr4 /abs.wav\n"
    )
    (train / "segments").write_text(
        "u1 r1 0.5 1.5\nu2 r1 2 -1\nu3 r1 3 2\nu4 r9 0 1\nu5 r3 0 1\nu6 r4 0 1\nu7 r2 0 1\n"
    )
    (train / "text").write_text("u1 hello\nu2 there\nu3 a\nu4 b\nu5 c\nu6 d\n")
    (train / "utt2spk").write_text("u1 anna\n")
    found = scan(tmp_path)
    assert found.layout == "kaldi"
    u1, u2 = found.items
    assert (u1.start_s, u1.end_s, u1.speaker, u1.split) == (0.5, 1.5, "anna", "train")
    assert (u2.start_s, u2.end_s, u2.speaker) == (2.0, None, "")
    messages = dict(problems(found))
    assert "from 3.0 s to 2.0 s" in messages["train/segments:3"]
    assert "not in wav.scp" in messages["train/text:4"]
    assert "never run" in messages["train/wav.scp:3"]
    assert "leads out" in messages["train/wav.scp:4"]
    assert "u7 has no transcript" in messages["train/segments:7"]


def test_a_plain_folder(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in ("a.WAV", "b.mp3", "c.wav", "test/anna/d.flac", ".trash/e.wav")
        )
    )
    (tmp_path / "a.txt").write_bytes("\ufeffgrüße\nan alle\n".encode())
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    (tmp_path / "lost.txt").write_text("no recording")
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "test/anna/d.txt").write_text("hello")
    found = scan(tmp_path, options=SourceOptions(speaker_from_folder=True))
    assert found.layout == "folder"
    items = by_id(found)
    assert items["a.WAV"].text == "grüße an alle"
    assert (items["test/anna/d.flac"].split, items["test/anna/d.flac"].speaker) == ("test", "anna")
    assert dict(problems(found)) == {
        "b.mp3": "has no transcript",
        "c.txt": "is not UTF-8",
        "lost.txt": "has no recording beside it",
    }


def test_speakers_from_folders_where_the_corpus_names_none(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("ada/train/a.wav", "test/b.wav", "bob/c.wav", "d.wav")))
    rows = [
        {"path": "ada/train/a.wav", "text": "x"},
        {"path": "test/b.wav", "text": "x"},
        {"path": "bob/c.wav", "text": "x", "speaker": "carl"},
        {"path": "d.wav", "text": "x"},
    ]
    found = scan(manifest(tmp_path, *rows), options=SourceOptions(speaker_from_folder=True))
    assert [item.speaker for item in found.items] == ["ada", "", "carl", ""]
    assert {item.speaker for item in scan(tmp_path).items} == {"", "carl"}


def test_consent_follows_from_a_licence_and_from_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    row = {"path": "a.wav", "text": "x"}
    for licence, consent in (
        ("", ()),
        ("unknown", ()),
        (" Unknown ", ()),
        ("MIT", ("eval", "train")),
    ):
        (item,) = scan(manifest(tmp_path, row | {"licence": licence})).items
        assert item.consent == consent, licence
    stated = SourceOptions(consent=("eval",))
    assert scan(tmp_path, options=stated).items[0].consent == ("eval",)
    (item,) = scan(manifest(tmp_path, row | {"consent": []}), options=stated).items
    assert item.consent == ()


def test_the_named_listing_is_read_and_no_other(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "b.wav")
    manifest(tmp_path, {"path": "a.wav", "text": "usual"})
    (tmp_path / "other.jsonl").write_text('{"path": "b.wav", "text": "other"}\n')
    assert [item.text for item in scan(tmp_path).items] == ["usual"]
    (item,) = scan(tmp_path / "other.jsonl").items
    assert (item.text, item.origin) == ("other", "other.jsonl:1")


def test_a_named_table_of_other_layouts(tmp_path: Path) -> None:
    common_voice(tmp_path, train=["s1\ta.mp3\tone\t2\ten"], dev=["s2\tb.mp3\ttwo\t2\ten"])
    (item,) = scan(tmp_path / "dev.tsv").items
    assert (item.text, item.split) == ("two", "dev")
    touch(tmp_path / "k/r.wav", tmp_path / "k/other/r.wav")
    for folder, text in ((tmp_path / "k", "outer"), (tmp_path / "k/other", "inner")):
        (folder / "wav.scp").write_text("u r.wav\n")
        (folder / "text").write_text(f"u {text}\n")
    assert [item.text for item in scan(tmp_path / "k/text").items] == ["outer"]


def test_folders_that_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no corpus.*write a manifest"):
        detect_layout(tmp_path)
    with pytest.raises(SourceError, match="no such folder"):
        scan(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(SourceError, match=r"not a folder and no file that lists recordings"):
        scan(tmp_path / "file")
    with pytest.raises(SourceError, match="'tape' is unknown"):
        scan(tmp_path, layout="tape")


@pytest.mark.parametrize(
    ("word", "split"),
    [("train-clean-100", "train"), ("Validation", "dev"), ("test_other", "test"), ("trains", "")],
)
def test_words_for_splits(word: str, split: str) -> None:
    assert split_named(word) == split
