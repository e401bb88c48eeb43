"""From somebody's folder to splits: ``corpus add``, ``ingest``, ``validate``, ``split`` together."""

import importlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from test_data_duplicates import speechlike

from data.corpus import CorpusOptions, CorpusReport, build_corpus
from data.manifest import read_manifest
from data.sources.item import SourceOptions
from governance.records import read_record
from pipelines import _paths as paths
from tests.support_workspace import command

ROOT = Path(__file__).resolve().parent.parent.parent
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace where nothing has run yet, in git and DVC; this process stands in it."""
    folder = tmp_path / "a work space"
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml", ".gitignore"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    monkeypatch.chdir(folder)
    return folder


def use(*corpora: str, **split: Any) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["ingest"] = {"corpora": list(corpora), "drop_duplicates": True}
    params["split"] |= {"dev_percent": 25.0, "test_percent": 25.0, **split}
    Path("params.yaml").write_text(yaml.safe_dump(params))


def take(*stages: str) -> None:
    for stage in stages:
        importlib.import_module(f"pipelines.{stage}").main()


def stopped(stage: str, capsys: Capture) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        take(stage)
    assert ended.value.code == 2
    return capsys.readouterr().err


def spoken(folder: Path, names: Iterator[str] | list[str], *, seed: int = 0) -> Path:
    """Recordings with a .txt beside each."""
    for number, name in enumerate(names, start=seed):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, speechlike(number, 1.2), 16_000, subtype="PCM_16")
        path.with_suffix(".txt").write_text("turn the light on")
    return folder


def added(name: str, folder: Path, **source: Any) -> CorpusReport:
    options = CorpusOptions(source=SourceOptions(**{"licence": "CC0-1.0"} | source))
    return build_corpus(name, folder, paths.SHARDS, options=options)


def splits() -> dict[str, set[str]]:
    """Speakers by split."""
    found: dict[str, set[str]] = {}
    for row in read_manifest(paths.SPLIT):
        found.setdefault(row.split, set()).add(row.speaker)
    return found


def test_a_folder_of_unknown_speakers_is_told_what_would_help(
    here: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = spoken(
        tmp_path / "speech", [f"{voice}/{n}.wav" for voice in "abcdefgh" for n in (1, 2)]
    )
    assert added("own", folder).without_speaker == 16
    use("own")
    take("ingest", "validate")
    message = stopped("split", capsys)
    assert "the speakers of 16 of 16 recordings are unknown" in message
    for mend in ("--speaker-from-folder", "utt2spk", "split.unknown_speakers: by_utterance"):
        assert mend in message
    assert not paths.SPLIT.exists()

    # The first mend: the same corpus again, with the folders as speakers.
    assert added("own", folder, speaker_from_folder=True).without_speaker == 0
    take("ingest", "validate", "split")
    by_split = splits()
    assert set(by_split) == {"train", "dev", "test"}
    assert sum(map(len, by_split.values())) == 8, "no voice in two splits"
    figures = read_record(paths.report("split")).figures
    assert figures["speakers_may_leak"] is False and figures["speaker_leakage"] == 0


def test_unknown_speakers_can_be_dealt_by_utterance_and_the_record_says_so(
    here: Path, tmp_path: Path, capsys: Capture
) -> None:
    added("own", spoken(tmp_path / "speech", [f"{n}.wav" for n in range(16)]))
    use("own", unknown_speakers="by_utterance")
    take("ingest", "validate", "split")
    assert set(splits()) == {"train", "dev", "test"}
    record = read_record(paths.report("split"))
    assert record.params == {"unknown_speakers": "by_utterance"}
    assert record.figures["speakers_may_leak"] is True
    strangers = record.figures["held_out_of_unknown_speakers"]
    assert strangers == {s: record.figures["utterances"][s] for s in ("dev", "test")}
    assert "held-out recordings are unknown; they may also be heard in train" in (
        capsys.readouterr().out
    )


def test_splits_of_folders_need_no_speakers(here: Path, tmp_path: Path) -> None:
    names = [f"{split}/{n}.wav" for split in ("train", "dev", "test") for n in range(2)]
    added("own", spoken(tmp_path / "speech", names))
    use("own")
    take("ingest", "validate", "split")
    counts = read_record(paths.report("split")).figures["utterances"]
    assert counts == {"train": 2, "dev": 2, "test": 2}


def test_no_licence_is_said_at_once_and_stops_at_validate(
    here: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = spoken(tmp_path / "speech", [f"{split}/1.wav" for split in ("train", "dev", "test")])
    status, _, err = command(capsys, "corpus", "add", str(folder), "--name", "own")
    assert status == 0 and "3 of 3 recordings name no licence" in err and "--licence" in err
    use("own")
    take("ingest")
    message = stopped("validate", capsys)
    assert "licence (3)" in message and "--licence" in message and "index.html" in message
    again = ("corpus", "add", str(folder), "--name", "own", "--licence", "MIT", "--json")
    status, out, err = command(capsys, *again)
    assert status == 0 and err == "" and json.loads(out)["without_licence"] == 0
    take("ingest", "validate", "split")
    assert {row.licence for row in read_manifest(paths.SPLIT)} == {"MIT"}
    assert read_record(paths.report("ingest")).figures["consent"] == {"eval, train": 3}


def test_every_problem_is_written_down(here: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = spoken(tmp_path / "speech", ["good.wav"])
    for number in range(30):
        (folder / f"bad{number}.wav").write_bytes(b"")
        (folder / f"bad{number}.txt").write_text("a secret transcript")
    arguments = ("corpus", "add", str(folder), "--name", "own", "--licence", "MIT")
    status, _, err = command(capsys, *arguments)
    path = paths.STATE / "corpora/own/problems.jsonl"
    assert status == 0 and f"... and 10 more, all in {path}" in err
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert {problem["item"] for problem in written} == {f"bad{n}.wav" for n in range(30)}
    assert all("is empty" in one["message"] and one["mend"] for one in written)
    assert "secret" not in path.read_text() + err
    _, out, _ = command(capsys, *arguments, "--json")
    assert json.loads(out)["problems"] == written and json.loads(out)["refused"] == 30
    (folder / "good.wav").unlink()
    status, _, err = command(capsys, *arguments[:3], "--name", "other")
    assert status == 2 and "none of its recordings can be used" in err
    assert len((paths.STATE / "corpora/other/problems.jsonl").read_text().splitlines()) == 31


def test_a_recording_in_two_splits_of_two_corpora_is_held_out_and_named(
    here: Path, tmp_path: Path, capsys: Capture
) -> None:
    names = ["train/1.wav", "train/2.wav", "dev/3.wav", "test/4.wav", "train/5.wav"]
    first = spoken(tmp_path / "first", names)
    second = tmp_path / "second"
    for name, target in (("train/1.wav", "test/same.wav"), ("train/5.wav", "train/5.wav")):
        spoken(second, [target])
        shutil.copyfile(first / name, second / target)
    samples_T, _ = soundfile.read(first / "train/2.wav")
    spoken(second, ["dev/louder.wav"])
    soundfile.write(second / "dev/louder.wav", np.asarray(samples_T) * 0.5, 16_000)
    added("first", first)
    added("second", second)
    kept: list[set[tuple[str, str]]] = []
    for order in (("first", "second"), ("second", "first")):
        use(*order)
        take("ingest")
        out = capsys.readouterr().out
        assert (
            "warning: 2 recordings are in different splits" in out and "check the speakers" in out
        )
        rows = read_manifest(paths.ALL)
        kept.append({(row.utterance_id, row.split) for row in rows})
        assert sum(row.split == "train" for row in rows) == 1
        figures = read_record(paths.report("ingest")).figures
        assert figures["duplicates"] == 3
        named = figures["repetitions"]
        assert (named["exact"], named["near"], named["split_conflicts"]) == (2, 1, 2)
        everything = json.loads(paths.REPETITIONS.read_text())
        assert len(everything) == len(named["first"]) == 3
        conflicts = {one["kind"]: one for one in named["first"][:2]}
        assert conflicts["exact"]["splits"] == ["test", "train"]
        assert conflicts["exact"]["corpora"] == ["second", "first"]
        assert conflicts["near"]["splits"] == ["dev", "train"]
        assert conflicts["exact"]["id"] in out
    assert kept[0] == kept[1]


def test_a_changed_shard_is_refused(here: Path, tmp_path: Path, capsys: Capture) -> None:
    report = added("own", spoken(tmp_path / "speech", ["train/1.wav", "test/2.wav"]))
    shard = paths.SHARDS / report.shards[0]
    content = bytearray(shard.read_bytes())
    content[2_000] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(bytes(content))
    use("own")
    message = stopped("ingest", capsys)
    assert shard.name in message and "dvc pull" in message and not paths.ALL.exists()


def test_a_microphone_array_comes_in_whole(here: Path, tmp_path: Path) -> None:
    folder = spoken(tmp_path / "speech", ["train/1.wav", "dev/2.wav", "test/3.wav"])
    array_TC = np.repeat(speechlike(7, 1.2)[:, None], 16, axis=1)
    soundfile.write(folder / "train/1.wav", array_TC, 16_000, subtype="PCM_16")
    assert added("own", folder).problems == ()
    use("own")
    take("ingest", "validate", "split")
    assert sorted(row.native_channels for row in read_manifest(paths.SPLIT)) == [1, 1, 16]
