"""Bad input at every door: a clear message that names the item and the mend; the good goes on.

Each named case, and where it is held (unit tests hold the rule, this file the doors together):

- empty, truncated, corrupt, silent, 10 ms, wrong extension, stereo, 8 kHz, 96 kHz, a zip named .wav, a
  header that claims 2 GB: decoding in ``tests/unit/test_data_audio.py``; the command line, the HTTP
  door and corpus import here; further HTTP cases in ``tests/unit/test_serving_openai_refusals.py``
- missing and non-UTF-8 transcripts, duplicate ids: ``tests/unit/test_data_sources.py``; import here
- a speaker in two splits: ``tests/unit/test_data_contracts.py``; the stage ``validate`` here
- unknown key in params.yaml: ``tests/unit/test_governance_params.py``; every section and stage here;
  through DVC in ``tests/e2e/test_loop.py``
- tampered ledger: ``tests/unit/test_governance_ledger.py``; the commands in ``tests/e2e/test_loop.py``
- a model whose FeatureSpec differs: ``tests/unit/test_features_bundle.py`` and
  ``tests/unit/test_serving_engine.py``; the commands here
"""

import importlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from starlette.testclient import TestClient

from data.corpus import build_corpus
from data.ids import speaker_pseudonym
from data.manifest import read_manifest
from features.spec import FeatureSpec
from governance.errors import ConfigError
from pipelines import _paths as paths
from pipelines._sections import SECTIONS, require_sound_params
from pipelines.code import STAGES
from serving.schema import Transcript
from tests.support_bundle import babble, make_bundle
from tests.support_service import running, wav
from tests.support_workspace import command

ROOT = Path(__file__).resolve().parent.parent.parent
SPEECH = babble(2.0)
Capture = pytest.CaptureFixture[str]


def encoded(kind: str, *, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    sink = io.BytesIO()
    samples_TC = np.repeat(babble(2.0, rate_hz=rate_hz)[:, None], channels, axis=1)
    soundfile.write(sink, samples_TC, rate_hz, format=kind)
    return sink.getvalue()


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.txt", "no audio" * 100)
    return sink.getvalue()


def claiming_2_gb() -> bytes:
    good = wav(SPEECH)
    return good[:40] + struct.pack("<I", 2_000_000_000) + good[44:]


# Name -> (bytes, the code of its refusal or "", a warning of its transcript or "").
AUDIO: dict[str, tuple[bytes, str, str]] = {
    "good.wav": (wav(SPEECH), "", ""),
    "empty.wav": (b"", "empty_audio", ""),
    "no_samples.wav": (wav(SPEECH[:0]), "empty_audio", ""),
    "truncated.wav": (wav(SPEECH)[:30_000], "", "truncated_audio"),
    "truncated.flac": (encoded("FLAC")[:30_000], "", "truncated_audio"),
    "corrupt.flac": (b"fLaC" + bytes(range(256)) * 40, "unreadable_audio", ""),
    "silent.wav": (wav(np.zeros(16_000, np.float32)), "", "no_speech"),
    "ten_ms.wav": (wav(SPEECH[:160]), "audio_too_short", ""),
    "wrong_extension.mp3": (wav(SPEECH), "", ""),
    "extension_of_a_text.txt": (encoded("FLAC"), "", ""),
    "stereo.wav": (encoded("WAV", channels=2), "", ""),
    "telephone.wav": (encoded("WAV", rate_hz=8_000), "", ""),
    "studio.flac": (encoded("FLAC", rate_hz=96_000, channels=2), "", ""),
    "zip.wav": (zipped(), "unreadable_audio", ""),
    "two_gigabytes.wav": (claiming_2_gb(), "", "truncated_audio"),
}
REFUSED = {name for name, (_, code, _) in AUDIO.items() if code}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[TestClient]:
    with running(bundle) as (opened, _runtime):
        yield opened


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace where nothing has run yet; this process stands in it."""
    folder = tmp_path / "a work space"
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    return folder


def test_every_file_at_the_command_line_is_answered_or_named(
    empty: Path, bundle: Path, capsys: Capture
) -> None:
    for name, (content, _, _) in AUDIO.items():
        (empty / name).write_bytes(content)
    status, out, err = command(capsys, "transcribe", *AUDIO, "--json", "--model", str(bundle))
    assert status == 2
    answers = [Transcript.model_validate_json(line) for line in out.splitlines()]
    heard = [name for name in AUDIO if name not in REFUSED]
    assert len(answers) == len(heard)
    for name, answer in zip(heard, answers, strict=True):
        warning = AUDIO[name][2]
        assert list(answer.warnings) == ([warning] if warning else []), name
        assert bool(answer.text) == (warning != "no_speech"), name
    complaints = err.splitlines()
    assert [line.split(": ")[1] for line in complaints] == [n for n in AUDIO if n in REFUSED]
    assert all("Mend: " in line for line in complaints), err


@pytest.mark.parametrize("name", AUDIO)
def test_every_file_over_http_is_answered_or_refused_in_openais_shape(
    client: TestClient, name: str
) -> None:
    content, code, warning = AUDIO[name]
    answer = client.post(
        "/v1/audio/transcriptions",
        files={"file": (name, content, "application/octet-stream")},
        data={"model": "tiny", "response_format": "verbose_json"},
    )
    document = answer.json()
    if code:
        assert answer.status_code == 400
        assert set(document) == {"error"}
        assert set(document["error"]) == {"message", "type", "param", "code"}
        assert (document["error"]["code"], document["error"]["param"]) == (code, "file")
        assert name in document["error"]["message"]
    else:
        assert answer.status_code == 200
        assert document["warnings"] == ([warning] if warning else [])
        assert bool(document["text"]) == (warning != "no_speech")


def corpus(folder: Path, rows: list[tuple[str, bytes, dict[str, Any] | bytes]]) -> Path:
    """A corpus folder; a row that is bytes goes into the manifest as it is."""
    folder.mkdir(parents=True)
    lines = []
    for name, content, row in rows:
        (folder / name).write_bytes(content)
        if isinstance(row, bytes):
            lines.append(row)
            continue
        described = {
            "id": name,
            "path": name,
            "text": "turn the light on",
            "speaker": f"speaker of {name}",
            "split": "train",
            "licence": "CC0-1.0",
            "consent": ["train", "eval"],
        }
        lines.append(json.dumps(described | row).encode())
    (folder / "manifest.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return folder


def take(stage: str) -> None:
    """Run one stage in this process."""
    importlib.import_module(f"pipelines.{stage}").main()


def use(name: str) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["ingest"] = {"corpora": [name], "drop_duplicates": True}
    params["validate"] = {"max_quarantined_share": 0.5}
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_a_corpus_of_all_that_is_bad_keeps_the_good(empty: Path, capsys: Capture) -> None:
    """Import names what cannot be read, the contract quarantines by id what should not be learned."""
    rows: list[tuple[str, bytes, dict[str, Any] | bytes]] = [
        (name, content, {}) for name, (content, _, _) in AUDIO.items()
    ]
    rows[-1] = (*rows[-1][:2], {"speaker": "other"})
    good = wav(babble(1.5, seed=90))
    rows += [
        ("no_text.wav", good, {"text": None}),
        ("latin.wav", good, b'{"id": "latin.wav", "path": "latin.wav", "text": "caf\xe9"}'),
        ("twice.wav", good, {"id": "good.wav"}),
        ("no_consent.wav", wav(babble(1.5, seed=91)), {"consent": []}),
        *((f"{n}.wav", wav(babble(1.5, seed=n)), {}) for n in range(20, 26)),
    ]
    report = build_corpus("own", corpus(empty / "source", rows), paths.SHARDS)
    refused = {problem.item: problem for problem in report.refused}
    lines = {f"manifest.jsonl:{number}": row[0] for number, row in enumerate(rows, start=1)}
    named = {lines[item] for item in refused}
    assert named >= (REFUSED - {"ten_ms.wav"}) | {"no_text.wav", "latin.wav", "twice.wav"}
    assert all(problem.message and problem.mend for problem in refused.values())
    assert not named & {"good.wav", "stereo.wav", "telephone.wav", "studio.flac", "20.wav"}

    use("own")
    take("ingest")
    capsys.readouterr()
    take("validate")
    quarantined = json.loads(paths.QUARANTINE.read_text())
    ids = {row.utterance_id for row in read_manifest(paths.ALL)}
    accepted = {row.utterance_id for row in read_manifest(paths.ACCEPTED)}
    assert accepted and accepted == ids - set(quarantined) and set(quarantined) <= ids
    reasons = "; ".join(reason for found in quarantined.values() for reason in found)
    assert "consent" in reasons and quarantined
    assert (paths.DATA_DOCS / "index.html").is_file()


def stopped(run: Callable[[], None], capsys: Capture) -> str:
    """What a stage said when it ended with exit status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_speaker_in_two_splits_stops_at_validate_by_name(empty: Path, capsys: Capture) -> None:
    rows: list[tuple[str, bytes, dict[str, Any] | bytes]] = [
        (
            f"{n}.wav",
            wav(babble(1.5, seed=n)),
            {"speaker": "Ada" if n in (0, 5) else f"s{n}", "split": "test" if n > 3 else "train"},
        )
        for n in range(6)
    ]
    build_corpus("own", corpus(empty / "source", rows), paths.SHARDS)
    use("own")
    take("ingest")
    message = stopped(lambda: take("validate"), capsys)
    assert message.startswith("auricle validate: ")
    assert f"{speaker_pseudonym('own', 'Ada')} of own" in message
    assert "test" in message and "train" in message
    assert "Mend: " in message
    assert not paths.ACCEPTED.exists() and not paths.report("validate").exists()


def test_a_corpus_that_is_not_there_is_named_with_those_that_are(
    empty: Path, capsys: Capture
) -> None:
    rows: list[tuple[str, bytes, dict[str, Any] | bytes]] = [("a.wav", wav(SPEECH), {})]
    build_corpus("own", corpus(empty / "source", rows), paths.SHARDS)
    use("other")
    message = stopped(lambda: take("ingest"), capsys)
    assert "no such corpus 'other' (there are: own)" in message
    assert "params.yaml: ingest.corpora" in message and "auricle corpus add" in message


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "synth"])
def test_a_stage_without_its_inputs_says_what_to_run(
    empty: Path, capsys: Capture, stage: str
) -> None:
    message = stopped(lambda: take(stage), capsys)
    assert message.startswith(f"auricle {stage}: data/")
    assert "is not there" in message and "Mend: " in message


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_key_of_any_section_is_named(empty: Path, section: str) -> None:
    """Before a stage starts, all sections are read as their stages read them."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(
        yaml.safe_dump(params | {section: params[section] | {"stepz": 1}})
    )
    with pytest.raises(ConfigError, match=rf"params\.yaml: {section}\.stepz: unknown key"):
        require_sound_params()
    Path("params.yaml").write_text(yaml.safe_dump(params))
    require_sound_params()


def other_front_end(bundle: Path, folder: Path, *, forged: bool) -> None:
    """A bundle whose FeatureSpec is another one; forged: its own digests agree with that."""
    shutil.copytree(bundle, folder)
    document = json.loads((folder / "bundle.json").read_text())
    document["feature_spec"]["preemphasis"] = 0.9
    if forged:
        spec = FeatureSpec.from_json(document["feature_spec"])
        document["feature_fingerprint"] = spec.fingerprint()
    (folder / "bundle.json").write_text(json.dumps(document))


@pytest.mark.parametrize("forged", [False, True])
def test_a_model_of_another_front_end_is_refused_by_every_command(
    empty: Path, bundle: Path, capsys: Capture, forged: bool
) -> None:
    other_front_end(bundle, empty / "other", forged=forged)
    Path("a.wav").write_bytes(wav(SPEECH))
    source = corpus(empty / "source", [("a.wav", wav(SPEECH), {"split": "test"})])
    for arguments in (("transcribe", "a.wav"), ("eval", str(source))):
        status, out, err = command(capsys, *arguments, "--model", "other")
        assert (status, out) == (2, "")
        assert str(empty / "other") in err and "fingerprint" in err and "Mend: " in err


def test_a_damaged_bundle_is_refused_by_the_name_of_its_file(
    empty: Path, bundle: Path, capsys: Capture
) -> None:
    shutil.copytree(bundle, "other")
    with Path("other/tokens.txt").open("a") as tokens:
        tokens.write("x 99\n")
    Path("a.wav").write_bytes(wav(SPEECH))
    status, out, err = command(capsys, "transcribe", "a.wav", "--model", "other")
    assert (status, out) == (2, "") and "tokens.txt" in err and "Mend: " in err


@pytest.mark.parametrize(
    ("content", "item"),
    [("gates: [", "line"), ("schema_version: 1\nalias: a\ngates: []\n", "gates"), (None, "gate")],
)
def test_a_broken_policy_stops_the_gate_by_name(
    empty: Path, capsys: Capture, content: str | None, item: str
) -> None:
    from governance.policy import load_policy

    text = content
    if text is None:
        text = (ROOT / "governance/policy.yaml").read_text().replace("owner:", "ownr:", 1)
    Path("policy.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_policy(Path("policy.yaml"))
    assert str(caught.value).startswith("policy.yaml") and item in str(caught.value)
