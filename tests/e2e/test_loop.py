"""The loop once round in a copy of this tree: one pipeline run, and everything it must leave behind.

The model is far too small to understand anybody: what is proven is the way from recordings to a
served transcript and back to its evidence. The strict policy of the repository must refuse it.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import psutil
import pytest
import soundfile
import yaml

from data.audio import load_mono_16k, to_pcm16
from data.manifest import Utterance, read_manifest
from data.shards import read_member
from governance.canonical import file_digest, tree_digest
from governance.registry import Registry
from pipelines import _paths as paths
from pipelines.code import STAGES, closures
from pipelines.processes import free_port
from serving.client import Client
from serving.schema import Transcript
from tests.support_registry import datasets, standing
from tests.support_workspace import ROOT, Workspace, command, commit, copy_tree, relaxed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPEEDS = [0.9, 1.0]
DVC_OUTS = ("manifests", "tokens", "features", "feast", "frames", "priors", "models", "reports")
Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The workspace and what its commands said on the way."""

    workspace: Workspace
    first: dict[str, Any]
    """Summary of the first run, under the strict policy."""
    packaged: dict[str, Any]
    """What that run packaged."""
    refused: subprocess.CompletedProcess[str]
    """The attempt to promote what the strict policy refused."""
    relaxed: dict[str, Any]
    """Summary of the run after only the policy changed."""
    promoted: dict[str, Any]
    """The promotion that followed."""
    again: dict[str, Any]
    """Summary of a run with nothing changed."""


def small(text: str) -> str:
    """The repository's parameters, as small as every stage still has something to do."""
    params = yaml.safe_load(text)
    params["synth"] |= {"train_utterances": 60, "dev_utterances": 12, "test_utterances": 12}
    params["featurize"]["speeds"] = SPEEDS
    params["train"] = {
        "model": {"d_model": 48, "layers": 2, "heads": 2, "middle_layer": 0},
        "augment": {"speeds": SPEEDS},
        "steps": 60,
        "warmup_steps": 10,
        "batch_utterances": 8,
        "dev_every_steps": 60,
        "checkpoint_every_steps": 60,
        "threads": 1,
    }
    params["evaluate"] |= {"players": 2, "beam": 4}
    params["quantize"] = {"calibration_streams": 4, "chunks_per_stream": 2, "probe_recordings": 2}
    params["benchmark"] = {"audio_seconds": 8.0, "repetitions": 1}
    params["package"]["gpu"] = True
    return yaml.safe_dump(params, sort_keys=False)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    workspace = copy_tree(tmp_path_factory.mktemp("loop") / "a work space")
    params = workspace.root / "params.yaml"
    params.write_text(small(params.read_text()))
    commit(workspace, "small")
    first = _run(workspace)
    packaged = workspace.read_json("data/reports/package.json")["figures"]
    refused = workspace.auricle("promote")
    policy = workspace.root / "governance" / "policy.yaml"
    policy.write_text(relaxed(policy.read_text()))
    loosened = _run(workspace)
    promoted = workspace.auricle("promote", "--json", "--actor", "owner")
    assert promoted.returncode == 0, promoted.stderr
    again = _run(workspace)
    commit(workspace, "after the run")
    return Loop(
        workspace=workspace,
        first=first,
        packaged=packaged,
        refused=refused,
        relaxed=loosened,
        promoted=json.loads(promoted.stdout),
        again=again,
    )


def _run(workspace: Workspace) -> dict[str, Any]:
    answer = workspace.auricle("run", "--json")
    assert answer.returncode == 0, answer.stderr
    outcome: dict[str, Any] = json.loads(answer.stdout)
    return outcome


@pytest.fixture
def here(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace, with this process standing in it."""
    monkeypatch.chdir(loop.workspace.root)
    return loop.workspace


@pytest.fixture
def state_copy(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ledger, keys and MLflow's database of the workspace, to be harmed; this process stands there."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(loop.workspace.root / name, tmp_path / name)
    shutil.copytree(
        loop.workspace.root / paths.STATE,
        tmp_path / paths.STATE,
        ignore=shutil.ignore_patterns("artifacts", "bentos", "checkpoints", "run"),
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def held_out(root: Path) -> list[tuple[Utterance, bytes]]:
    rows = [row for row in read_manifest(root / paths.SPLIT) if row.split == "test"]
    return [
        (row, read_member(root / paths.SHARDS, row.shard, row.offset, row.length))
        for row in sorted(rows, key=lambda row: row.utterance_id)
    ]


# The pipeline.


def test_the_workspace_runs_its_own_packages(loop: Loop) -> None:
    code = "import data, pipelines; print(data.__file__); print(pipelines.__file__)"
    answer = loop.workspace.python("-c", code)
    folders = {Path(line).resolve().parent.parent for line in answer.stdout.splitlines()}
    assert folders == {loop.workspace.root.resolve()}, answer.stderr
    assert " " in loop.workspace.root.name


def test_every_stage_ran_once_and_left_its_record(loop: Loop) -> None:
    assert list(loop.first["ran"]) == ["code", *STAGES]
    assert loop.first["unchanged"] == [] and loop.first["failed"] == ""
    for stage in STAGES:
        record = loop.workspace.read_json(f"data/reports/{stage}.json")
        assert record["stage"] == stage and record["environment"]["git_commit"]
    featurize = loop.workspace.read_json("data/reports/featurize.json")["figures"]
    assert featurize["computed"] + featurize["reused"] == 60 * len(SPEEDS) + 24


def test_the_strict_policy_refuses_and_nothing_moves(loop: Loop) -> None:
    assert loop.refused.returncode == 3, loop.refused.stderr
    assert "the gates refused: wer_file: " in loop.refused.stderr
    assert "not <= 0.35" in loop.refused.stderr and "Mend: " in loop.refused.stderr
    assert loop.refused.stdout == ""
    assert loop.packaged["chosen"] == "" and loop.packaged["bentos"] == {}
    assert set(loop.packaged["versions"]) == {"fp32", "fp16", "int8"}


def test_a_changed_policy_reruns_the_verdict_and_the_package_alone(loop: Loop) -> None:
    assert list(loop.relaxed["ran"]) == ["code", "gate", "package"]
    assert loop.promoted["variant"] == "int8" and loop.promoted["alias"] == "champion"


def test_nothing_changed_nothing_runs(loop: Loop) -> None:
    assert list(loop.again["ran"]) == ["code"]
    assert loop.again["unchanged"] == list(STAGES)


def test_a_comment_reruns_nothing_and_a_statement_its_importers(loop: Loop) -> None:
    workspace, name = loop.workspace, "data/scoring.py"
    text = (workspace.root / name).read_text()
    with workspace.edited(name, "# Nobody runs a comment.\n" + text):
        assert _outdated(workspace) == set()
    with workspace.edited(name, text + "\nADDED = 1\n"):
        importers = {stage for stage, modules in closures().items() if "data.scoring" in modules}
        assert _outdated(workspace) == importers
    assert {"evaluate", "quantize"} <= importers and "ingest" not in importers
    assert _outdated(workspace) == set()


def _outdated(workspace: Workspace) -> set[str]:
    """Stages whose own inputs differ, by DVC, after the stage that always runs."""
    assert workspace.python("-m", "pipelines.code").returncode == 0
    status = json.loads(workspace.dvc("status", "--json"))
    return {
        stage
        for stage, changes in status.items()
        if stage != "code"
        and any(isinstance(change, dict) and "changed deps" in change for change in changes)
    }


def test_an_unknown_key_is_named_with_its_place_and_the_nearest(loop: Loop) -> None:
    workspace = loop.workspace
    text = (workspace.root / "params.yaml").read_text()
    with workspace.edited("params.yaml", text.replace("  steps: 60", "  stepz: 60")):
        answer = workspace.auricle("run", "--json", "train")
        alone = workspace.python("-m", "pipelines.train")  # as `dvc repro` runs the stage
    for refused in (answer, alone):
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "params.yaml: train.stepz: unknown key" in refused.stderr
        assert "did you mean 'steps'?" in refused.stderr
    assert (workspace.root / "data/models/checkpoint").is_dir()  # no stage began


# Decisions and evidence.


def test_promoting_again_adds_nothing_to_the_ledger(here: Workspace, capsys: Capture) -> None:
    _, before, _ = command(capsys, "audit", "list", "--json")
    status, out, _ = command(capsys, "promote", "--json")
    assert status == 0 and json.loads(out)["alias"] == "champion"
    assert command(capsys, "audit", "list", "--json")[1] == before
    kinds = [json.loads(line)["kind"] for line in before.splitlines()]
    assert kinds.count("promote") == 1 and kinds[-1] == "promote"


def test_a_version_that_was_not_chosen_cannot_be_promoted(
    loop: Loop, here: Workspace, capsys: Capture
) -> None:
    package = loop.workspace.read_json("data/reports/package.json")["figures"]
    other = package["versions"]["fp32"]
    status, _, err = command(capsys, "promote", "--version", str(other))
    assert status == 2 and f"version {other} (fp32)" in err
    status, _, err = command(capsys, "promote", "--version", "99")
    assert status == 2 and "99: the ledger knows no such version" in err


def test_audit_verifies_chain_signatures_and_aliases(here: Workspace, capsys: Capture) -> None:
    status, out, _ = command(capsys, "audit", "verify", "--json")
    report = json.loads(out)
    assert status == 0 and report["ok"] and report["aliases"] == []
    assert report["unanchored_tail"] == 0 and report["checkpoints"] > 0


def test_a_tampered_ledger_is_named_by_its_event(state_copy: Path, capsys: Capture) -> None:
    with sqlite3.connect(state_copy / paths.LEDGER) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("UPDATE events SET body = replace(body, 'false', 'true') WHERE seq = 1")
    connection.close()
    status, out, _ = command(capsys, "audit", "verify")
    assert status == 2
    assert "TAMPERED, first bad event 1: " in out and "Mend: restore" in out
    status, out, _ = command(capsys, "audit", "verify", "--json")
    assert status == 2 and json.loads(out)["first_bad"] == 1
    for arguments in (["promote"], ["lineage"], ["transcribe", "x.wav"]):
        status, out, err = command(capsys, *arguments)
        assert (status, out) == (2, "") and "event 1" in err, arguments


def test_an_alias_moved_by_hand_is_named_and_promote_puts_it_back(
    loop: Loop, state_copy: Path, capsys: Capture
) -> None:
    other = loop.workspace.read_json("data/reports/package.json")["figures"]["versions"]["fp32"]
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    registry.set_alias("auricle", "champion", other)
    status, out, _ = command(capsys, "audit", "verify")
    assert status == 2
    assert f"auricle@champion: moved by hand to version {other}" in out
    mend = f"promote --version {loop.promoted['version']} --alias champion"
    assert f"Mend: auricle {mend}\n" in out
    assert command(capsys, *mend.split())[0] == 0
    assert command(capsys, "audit", "verify")[0] == 0


def test_lineage_goes_from_the_alias_to_shards_checks_and_commit(
    loop: Loop, here: Workspace, capsys: Capture
) -> None:
    status, text, _ = command(capsys, "lineage", "auricle@champion")
    assert status == 0
    (shard,) = loop.workspace.read_json("data/reports/ingest.json")["figures"]["shards"].items()
    for evidence in (
        "auricle@champion",
        "by owner",
        f"MLflow run {loop.promoted['run_id']}",
        loop.promoted["bundle_digest"],
        loop.promoted["bento"],
        shard[0],
        shard[1],
        "Great Expectations passed: True",
        "Feast feature service: asr_training_v1",
        "gates passed: True",
        loop.workspace.git("rev-parse", "HEAD~1").strip(),
        "every link holds",
        "stage split",
    ):
        assert evidence in text, evidence
    assert "not recorded" not in text
    status, out, _ = command(capsys, "lineage", "--json")
    assert status == 0 and json.loads(out)["intact"] is True
    status, _, err = command(capsys, "lineage", "auricle@nobody")
    assert status == 2 and "auricle@nobody" in err


def test_mlflow_holds_what_a_model_owner_looks_for(loop: Loop, here: Workspace) -> None:
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    version = standing(registry, "auricle", "champion")
    assert version.run_id == loop.promoted["run_id"]
    assert version.tags["verdict"] == "passed" and version.tags["variant"] == "int8"
    assert version.tags["gate.wer_file"].startswith("passed: ")
    assert version.tags["gate.int8_words"].startswith("passed: ")
    assert version.tags["bento"] == loop.promoted["bento"] != ""
    assert version.tags["policy"] == file_digest(Path("governance/policy.yaml"))
    assert version.tags["feature_fingerprint"].startswith("fs1-")
    run = registry._client.get_run(version.run_id)
    assert run.data.params["train.steps"] == "60"
    names = set(run.data.metrics)
    assert {"test_wer.full_lm", "test_wer.stream_greedy"} <= names
    assert any(name.startswith("test_wer_by_speaker/") for name in names)
    assert len(registry._client.get_metric_history(version.run_id, "loss")) > 1
    inputs = {found["name"]: found for found in datasets(registry, version.run_id)}
    assert {name.partition(":")[0] for name in inputs} == {"manifest", "features", "shards"}
    card = registry._client.get_model_version("auricle", str(version.version)).description
    for part in ("Intended use", "Limits", "Quantisation", "lineage", "licence"):
        assert part.lower() in card.lower(), part
    root = paths.MLFLOW_ARTIFACTS / version.run_id / "artifacts"
    for kind, name in (
        ("reports", "evaluation.html"),
        ("card", "model_card.html"),
        ("records", "gate.json"),
    ):
        assert (root / version.tags[kind] / name).is_file(), kind
    assert version.folder is not None and (version.folder / "bundle.json").is_file()


def test_fp16_is_a_version_of_its_own_measured_without_a_gpu(loop: Loop, here: Workspace) -> None:
    half = loop.workspace.read_json("data/reports/export.json")["figures"]["fp16"]
    assert half["provider"] == "CPUExecutionProvider" and half["gpu_speed"] == "not measured"
    assert 0 < half["max_abs_diff"] < 1 and half["token_agreement"] > 0.9
    assert half["size_ratio"] > 1.5 and half["test_wer"]["low"] <= half["test_wer"]["high"]
    package = loop.workspace.read_json("data/reports/package.json")["figures"]
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    version = next(
        v for v in registry.versions("auricle") if v.version == package["versions"]["fp16"]
    )
    assert version.tags["variant"] == "fp16" and version.tags["verdict"] == "passed"
    assert version.tags["gate.fp16_words"].startswith("passed: ")
    assert version.tags["gate.fp16_speed"] == "warned: fp16.gpu_speedup was not measured"
    assert version.tags["bento"] == package["bentos"]["gpu"]


def test_two_bentos_were_built_from_the_same_code(loop: Loop) -> None:
    bentos = loop.workspace.read_json("data/reports/package.json")["figures"]["bentos"]
    home = loop.workspace.root / paths.BENTO_ROOT / "home" / "bentos"
    trees = {}
    for variant, tag in bentos.items():
        folder = home.joinpath(*tag.split(":"))
        trees[variant] = {
            path.relative_to(folder / "src").as_posix(): path.read_bytes()
            for path in (folder / "src").rglob("*.py")
        }
        requirements = (folder / "env" / "python" / "requirements.txt").read_text()
        assert ("onnxruntime-gpu" in requirements) == (variant == "gpu")
        assert "torch" not in requirements
    assert set(trees) == {"cpu", "gpu"} and trees["cpu"] == trees["gpu"] != {}


# Transcripts.


def test_transcribe_answers_the_good_and_names_the_bad(
    loop: Loop, here: Workspace, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "good.flac").write_bytes(held_out(here.root)[0][1])
    (tmp_path / "empty.wav").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "zip.wav", "w") as archive:
        archive.writestr("a.txt", "no audio")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000, np.int16), 16_000)
    names = [
        str(tmp_path / name)
        for name in ("empty.wav", "good.flac", "zip.wav", "absent.wav", "silent.wav")
    ]
    status, out, err = command(capsys, "transcribe", "--json", *names)
    good, silent = (Transcript.model_validate_json(line) for line in out.splitlines())
    assert status == 2
    assert good.schema_version == 1 and good.duration_s > 0.5
    assert good.model.variant == "int8"
    assert good.model.version == str(loop.promoted["version"])
    assert silent.text == "" and silent.warnings == ("no_speech",)
    complaints = [line for line in err.splitlines() if line.startswith("auricle: ")]
    assert len(complaints) == 3, err
    for name, complaint in zip(("empty.wav", "zip.wav", "absent.wav"), complaints, strict=True):
        assert complaint.startswith(f"auricle: {name}: ")
    status, out, err = command(capsys, "transcribe", names[1])
    assert (status, err) == (0, "") and out.startswith(good.text)


def test_transcribe_refuses_an_unknown_model(here: Workspace, capsys: Capture) -> None:
    status, _, err = command(capsys, "transcribe", "x.wav", "--model", "auricle@nobody")
    assert status == 2 and "auricle@nobody: " in err and "Mend: " in err
    status, _, err = command(capsys, "transcribe", "x.wav", "--model", "nowhere")
    assert status == 2 and "bundle.json" in err


def shared_form(folder: Path, recordings: list[tuple[str, str, str, bytes]]) -> Path:
    """A corpus folder with ``manifest.jsonl``: (speaker, split, text, FLAC)."""
    (folder / "audio").mkdir(parents=True)
    rows = []
    for index, (speaker, split, text, audio) in enumerate(recordings):
        (folder / "audio" / f"{index}.flac").write_bytes(audio)
        rows.append(
            {
                "id": f"{folder.name}-{index}",
                "path": f"audio/{index}.flac",
                "text": text,
                "speaker": speaker,
                "split": split,
                "language": "en",
                "licence": "CC0-1.0",
                "consent": ["train", "eval"],
            }
        )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(text)
    return folder


def test_eval_of_a_corpus_folder(
    loop: Loop, here: Workspace, tmp_path: Path, capsys: Capture
) -> None:
    recordings = [(row.speaker, "test", row.text, audio) for row, audio in held_out(here.root)[:4]]
    corpus = shared_form(tmp_path / "own", recordings)
    status, out, err = command(capsys, "eval", str(corpus), "--json")
    answer = json.loads(out)
    assert status == 0, err
    assert answer["utterances"] == 4 and answer["model"]["variant"] == "int8"
    assert answer["model"]["version"] == str(loop.promoted["version"])
    for rate in ("wer", "cer"):
        assert answer[rate]["low"] <= answer[rate]["point"] <= answer[rate]["high"]
    assert {"speaker", "duration"} & set(answer["slices"])
    (corpus / "audio" / "3.flac").write_bytes(b"")
    status, out, err = command(
        capsys, "eval", str(corpus / "manifest.jsonl"), "--mode", "stream", "--greedy"
    )
    assert status == 2 and "3 recordings" in out and "WER" in out
    assert "manifest.jsonl:4" in err


@pytest.fixture(scope="module")
def service(loop: Loop) -> Iterator[Client]:
    """``auricle up`` in the background; ``auricle down`` afterwards leaves nobody."""
    port = free_port()
    answer = loop.workspace.auricle("up", "--no-mlflow", "--port", str(port))
    assert answer.returncode == 0, answer.stderr
    members: list[psutil.Process] = []
    try:
        facts = loop.workspace.read_json("data/state/run/service.pid.json")
        leader = psutil.Process(facts["pid"])
        members = [leader, *leader.children(recursive=True)]
        assert os.getpgid(leader.pid) == leader.pid
        key = (loop.workspace.root / paths.DEVELOPMENT_KEY).read_text().strip()
        yield Client(url=f"http://127.0.0.1:{port}", api_key=key)
    finally:
        down = loop.workspace.auricle("down")
    assert down.returncode == 0 and "service: stopped" in down.stdout
    _gone, alive = psutil.wait_procs(members, timeout=10)
    left = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert members and not left
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == facts["pid"]:
                assert process.status() == psutil.STATUS_ZOMBIE, process.cmdline()
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    assert "service: was not running" in loop.workspace.auricle("down").stdout


def test_the_promoted_bento_answers_the_openai_client(
    loop: Loop, service: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    row, audio = held_out(loop.workspace.root)[0]
    (tmp_path / "a.flac").write_bytes(audio)
    sdk = openai.OpenAI(base_url=service.url + "/v1", api_key=service.api_key, max_retries=0)
    with (tmp_path / "a.flac").open("rb") as sound:
        answer = sdk.audio.transcriptions.create(
            model="auricle", file=sound, response_format="verbose_json"
        )
    assert answer.duration == pytest.approx(row.duration_s, abs=0.01)
    monkeypatch.chdir(loop.workspace.root)
    _, out, _ = command(capsys, "transcribe", "--json", str(tmp_path / "a.flac"))
    assert answer.text == Transcript.model_validate_json(out).text
    (model,) = service.models()
    assert model["id"] == "auricle"
    heard = service.transcribe(tmp_path / "a.flac", model="auricle")
    assert heard.model.version == str(loop.promoted["version"])
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.audio.transcriptions.create(model="auricle", file=("empty.wav", b""))
    assert refused.value.param == "file"


def test_the_promoted_bento_hears_a_stream(loop: Loop, service: Client) -> None:
    row, audio = held_out(loop.workspace.root)[1]
    pcm = to_pcm16(load_mono_16k(audio, name=row.utterance_id)[:, None]).tobytes()
    streamed = service.stream(pcm, rate_hz=16_000)
    assert streamed.close_code == 1000 and streamed.finals
    assert streamed.metadata is not None
    assert streamed.metadata["duration"] == pytest.approx(row.duration_s, abs=0.01)


def test_up_twice_is_refused(loop: Loop, service: Client) -> None:
    answer = loop.workspace.auricle("up", "--no-mlflow", "--port", str(free_port()))
    assert answer.returncode == 2 and "service: runs already" in answer.stderr
    assert service.is_ready()


# Later candidates and verdicts; the workspace is as before when each of these has ended.


def test_a_policy_that_is_strict_again_is_judged_again(loop: Loop) -> None:
    """DVC has seen these very inputs before; an old verdict must not be replayed."""
    workspace = loop.workspace
    strict = (ROOT / "governance" / "policy.yaml").read_text()
    with workspace.edited("governance/policy.yaml", strict):
        assert list(_run(workspace)["ran"]) == ["code", "gate", "package"]
        refused = workspace.auricle("promote")
        assert refused.returncode == 3 and "the gates refused" in refused.stderr
    assert list(_run(workspace)["ran"]) == ["code", "gate", "package"]


def test_the_next_candidate_leaves_the_champion_alone(
    loop: Loop, here: Workspace, capsys: Capture
) -> None:
    """Another export of the same training: the same MLflow run, other bytes, another version."""
    workspace, champion = loop.workspace, loop.promoted
    text = (workspace.root / "params.yaml").read_text()
    with workspace.edited("params.yaml", text.replace("built-in synthetic", "altogether other")):
        ran = list(_run(workspace)["ran"])
        assert ran == ["code", "export", "quantize", "benchmark", "gate", "package"]
        gate = workspace.read_json("data/reports/gate.json")["figures"]
        assert gate["compared_with"] == champion["version"]
        assert tree_digest(Path(champion["bundle"])) == champion["bundle_digest"]
        status, out, _ = command(capsys, "lineage", "auricle@champion")
        assert status == 0 and "every link holds" in out and champion["bundle_digest"] in out
        status, out, err = command(capsys, "promote", "--json")
        newer = json.loads(out)
        assert status == 0 and newer["run_id"] == champion["run_id"], err
        assert newer["version"] > champion["version"] and "altogether other" in newer["domain"]
        assert command(capsys, "lineage")[0] == 0
        back = ["promote", "--version", str(champion["version"]), "--json"]
        status, out, err = command(capsys, *back)
        assert status == 0 and json.loads(out)["rollback_from"] == newer["version"], err
        assert command(capsys, "audit", "verify")[0] == 0
    assert list(_run(workspace)["ran"])[-2:] == ["gate", "package"]
    assert tree_digest(Path(newer["bundle"])) == newer["bundle_digest"]


def test_the_demo_says_what_it_needs_asks_the_service_and_leaves_nobody(loop: Loop) -> None:
    """Its stages are up to date here; what it does on top is the promotion and the conversation."""
    workspace = loop.workspace
    before = {process.pid for process in psutil.process_iter()}
    answer = workspace.auricle("demo", "--recordings", "2")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    out = answer.stdout
    assert "2 GB of disk" in out and "under a minute" in out and "every stage is up to date" in out
    assert f"champion: auricle version {loop.promoted['version']} (int8)" in out
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    spoken = [row.normalised_text for row, _ in held_out(workspace.root)]
    assert [row[1].strip() for row in rows] == ["http", "websocket", "http"]
    assert all(row[2].strip() in spoken for row in rows) and rows[0][2:] == rows[1][2:]
    for name in ("full_greedy", "full_lm", "stream_greedy", "stream_lm"):
        assert f"WER {name} " in out, name
    assert "95 % interval" in out and "fp32" in out and "int8" in out
    for page in ("evaluation.html", "model_card.html"):
        place = workspace.root / paths.REPORTS / page
        assert place.is_file() and place.resolve().as_uri() in out
    (curl,) = [line for line in out.splitlines() if "curl" in line]
    assert (workspace.root / curl.rsplit("@", 1)[1]).is_file()
    assert not list((workspace.root / paths.RUN).glob("demo-*.pid.json"))
    for process in psutil.process_iter():
        if process.pid not in before:
            try:
                assert Path(process.cwd()) != workspace.root, process.cmdline()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue


# Data that moves and grows; these come last, because they change the workspace.


def test_push_and_pull_restore_a_fresh_clone_bit_for_bit(loop: Loop, tmp_path: Path) -> None:
    workspace = loop.workspace
    workspace.dvc("remote", "add", "--quiet", "-d", "store", str(tmp_path / "remote folder"))
    commit(workspace, "remote")
    # `auricle demo` leaves a recording for its curl line there; no stage made it
    for name in ("sample.flac", "sample.wav"):
        (workspace.root / paths.REPORTS / name).unlink(missing_ok=True)
    workspace.dvc("push", "--quiet")
    workspace.git("clone", "--quiet", str(workspace.root), str(tmp_path / "a clone"))
    clone = Workspace(root=tmp_path / "a clone")
    clone.dvc("pull", "--quiet")
    for name in (*DVC_OUTS, "shards/builtin"):
        ours, theirs = (place.root / "data" / name for place in (workspace, clone))
        assert tree_digest(theirs) == tree_digest(ours), name
    outcome = _run(clone)
    assert list(outcome["ran"]) == ["code"], "a restored clone has nothing to compute"
    # Ledger, MLflow and bentos did not travel: the clone makes its own from what did.
    refused = clone.auricle("promote")
    assert refused.returncode == 2 and "`auricle run --again package`" in refused.stderr
    answer = clone.auricle("run", "--again", "package")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    promoted = clone.auricle("promote", "--json")
    assert promoted.returncode == 0, promoted.stderr
    assert json.loads(promoted.stdout)["bundle_digest"] == loop.promoted["bundle_digest"]
    lineage = clone.auricle("lineage")
    assert lineage.returncode == 0 and "every link holds" in lineage.stdout, lineage.stdout


def test_new_recordings_cost_only_themselves(loop: Loop, tmp_path: Path) -> None:
    """Two recordings are 2 % of the corpus; their features are all that is computed."""
    workspace = loop.workspace
    recordings = []
    for index, (row, audio) in enumerate(held_out(workspace.root)[:2]):
        samples_T = load_mono_16k(audio, name=row.utterance_id)
        other_T = np.concatenate([samples_T[::-1], samples_T[: 4000 * (index + 1)]])
        path = tmp_path / f"{index}.flac"
        soundfile.write(path, other_T, 16_000, subtype="PCM_16")
        recordings.append((f"new-{index}", "train", row.text, path.read_bytes()))
    corpus = shared_form(tmp_path / "new recordings", recordings)
    answer = workspace.auricle("corpus", "add", str(corpus), "--name", "more", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["new"] == 2
    assert "?? data/shards/more.dvc" in workspace.git("status", "--short", "-uall")
    text = (workspace.root / "params.yaml").read_text()
    with workspace.edited("params.yaml", text.replace("- builtin", "- builtin\n  - more")):
        answer = workspace.auricle("run", "--json", "featurize")
    assert answer.returncode == 0, answer.stderr
    figures = workspace.read_json("data/reports/featurize.json")["figures"]
    assert figures["computed"] == 2 * len(SPEEDS)
    assert figures["reused"] == 60 * len(SPEEDS) + 24
    # DVC deletes outputs before a stage runs; the shards of the built-in corpus came back the same.
    clean = workspace.git("status", "--short", "dvc.lock")
    assert clean and "data/shards/builtin" not in _outs_that_differ(workspace)


def _outs_that_differ(workspace: Workspace) -> set[str]:
    """Outputs whose digest in ``dvc.lock`` is not that of the commit."""
    before = yaml.safe_load(workspace.git("show", "HEAD:dvc.lock"))["stages"]
    now = yaml.safe_load((workspace.root / "dvc.lock").read_text())["stages"]
    return {
        out["path"]
        for stage, entry in now.items()
        for out in entry["outs"]
        if out not in before[stage]["outs"]
    }
