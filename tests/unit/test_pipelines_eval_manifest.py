"""``auricle eval``: any layout, the service's recogniser, bad items named, nothing of torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from pipelines import cli
from pipelines._corpus_eval import evaluate_bundle, open_corpus
from pipelines._recognise import open_recognizer, text_of
from tests.support_bundle import babble, make_bundle
from tests.support_service import pcm16

SPOKEN = 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def corpus(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise whose references are what the bundle hears; one recording's reference is off by one."""
    folder = tmp_path_factory.mktemp("a corpus")
    recognizer = open_recognizer(bundle)
    rows = []
    for number in range(SPOKEN):
        path = folder / f"{number}.flac"
        soundfile.write(path, pcm16(babble(3.0, seed=number)), 16_000, subtype="PCM_16")
        text = text_of(recognizer, path, name=path.name)
        assert text
        rows.append(
            {
                "id": str(number),
                "path": path.name,
                "text": text + " extra" * (number == 0),
                "speaker": f"s{number}",
                "split": "test" if number < 2 else "dev",
            }
        )
    _write(folder, rows)
    return folder


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    lines = (json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text("".join(lines))


def evaluate(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    status = cli.main(["eval", "--json", *arguments])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else {}, err


def test_rates_are_those_of_the_references(
    bundle: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found, _ = evaluate(capsys, str(corpus / "manifest.jsonl"), "--model", str(bundle))
    assert status == 0
    assert found["words"] == {"sub": 0, "ins": 0, "del_": 1, "ref": found["words"]["ref"]}
    assert found["wer"]["point"] == pytest.approx(1 / found["words"]["ref"])
    assert 0 < found["cer"]["point"] < 1 and found["utterances"] == found["speakers"] == 2
    assert found["model"]["name"] == "tiny" and found["audio_s"] == pytest.approx(6.0)
    worst, best = found["slices"]["speaker"]
    assert worst["wer"]["point"] > 0 == best["wer"]["point"]
    assert {"corpus", "SNR", "duration", "speaker"} <= set(found["slices"])


def test_other_splits_modes_and_the_greedy_decoder(
    bundle: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, dev, _ = evaluate(capsys, str(corpus), "--model", str(bundle), "--split", "dev", "--greedy")
    assert dev["utterances"] == 1 and dev["words"]["del_"] == 0 and dev["decoder"] == "greedy"
    arguments = (str(corpus), "--model", str(bundle), "--split", "all", "--mode", "stream")
    _, streamed, _ = evaluate(capsys, *arguments)
    assert streamed["utterances"] == SPOKEN and streamed["mode"] == "stream"
    assert streamed["words"] | {"ref": 0} == {"sub": 0, "ins": 0, "del_": 1, "ref": 0}


def test_greedy_leaves_the_language_model_of_a_bundle_aside(bundle: Path) -> None:
    recognizer = open_recognizer(bundle, greedy=True)
    assert recognizer.config.decoder.kind == "greedy"
    assert recognizer.engine.bundle.config.decoder == open_recognizer(bundle).config.decoder


def test_bad_items_are_named_and_the_good_remainder_goes_on(
    bundle: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    (tmp_path / rows[0]["path"]).write_bytes((corpus / rows[0]["path"]).read_bytes())
    (tmp_path / "broken.flac").write_bytes(b"RIFF")
    broken = {**rows[0], "id": "b", "path": "broken.flac"}
    silent = {**rows[0], "id": "c", "consent": ["train"]}
    _write(tmp_path, [rows[0], broken, silent, {**rows[0], "id": "d", "path": "gone.flac"}])
    status, found, err = evaluate(capsys, str(tmp_path), "--model", str(bundle))
    assert status == 2 and found["utterances"] == 1
    assert {problem["item"] for problem in found["problems"]} == {
        f"manifest.jsonl:{line}" for line in (2, 3, 4)
    }
    assert "broken.flac" in err and "gone.flac" in err and "consent" in err


def test_nothing_usable_and_an_unknown_split_are_refused(
    bundle: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, mend in (
        ("train", "--split dev or --split test or --split all"),  # those that are there
        ("holdout", "train, dev, test or all"),
    ):
        arguments = (str(corpus), "--model", str(bundle), "--split", split)
        status, found, err = evaluate(capsys, *arguments)
        assert status == 2 and not found and split in err
        assert err.endswith(f"Mend: {mend}\n")


def test_where_no_recording_can_be_used_the_first_problem_brings_the_mend(
    bundle: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.loads((corpus / "manifest.jsonl").read_text().splitlines()[0])
    (tmp_path / row["path"]).write_bytes((corpus / row["path"]).read_bytes())
    _write(tmp_path, [{**row, "consent": ["train"]}])
    arguments = ("--model", str(bundle), "--split", row["split"])
    status, found, err = evaluate(capsys, str(tmp_path), *arguments)
    assert status == 2 and not found and err.count("Mend: ") == 1
    assert "manifest.jsonl:1" in err and "add eval to its consent" in err


def test_a_folder_without_splits_is_taken_whole(bundle: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "one.flac").write_bytes((corpus / "1.flac").read_bytes())
    (tmp_path / "one.txt").write_text("whatever")
    opened = open_corpus(tmp_path, "test")
    assert opened.split == "all"
    assert evaluate_bundle(bundle, opened, mode="file", greedy=True).result.utterances == 1


def test_of_several_manifests_the_named_one_is_evaluated(
    bundle: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    other = corpus / "hard cases.jsonl"
    other.write_text(json.dumps(rows[0]) + "\n")
    try:
        status, found, _ = evaluate(capsys, str(other), "--model", str(bundle))
        assert (status, found["utterances"], found["words"]["del_"]) == (0, 1, 1)
        assert found["corpus"] == f"{corpus.name}/hard cases.jsonl"
        assert evaluate(capsys, str(corpus), "--model", str(bundle))[1]["utterances"] == 2
        status, _, err = evaluate(capsys, str(corpus / "0.flac"), "--model", str(bundle))
        assert status == 2 and "no file that lists recordings" in err and "Mend: " in err
    finally:
        other.unlink()


def test_evaluation_needs_no_torch(bundle: Path, corpus: Path) -> None:
    script = (
        "import sys\nfrom pipelines import cli\n"
        f"status = cli.main(['eval', {str(corpus)!r}, '--model', {str(bundle)!r}])\n"
        "heavy = {'torch', 'pytorch_lightning', 'mlflow', 'feast', 'dvc', 'pandas'} & set(sys.modules)\n"
        "sys.exit(status or sorted(heavy) or 0)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "WER" in answer.stdout and "CER" in answer.stdout
