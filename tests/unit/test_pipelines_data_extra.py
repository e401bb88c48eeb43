"""The extra ``data`` alone brings recordings as far as splits, and DVC carries them to a clone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_data_duplicates import speechlike
from test_pipelines_corpus import spoken

from data.shards import verify_shard
from governance.canonical import tree_digest
from tests.support_audio import encoded
from tests.support_workspace import Workspace, commit, copy_tree, environment

pytestmark = pytest.mark.slow

# What other extras bring and `data` does not. A hidden module is not there at all: for an import, for
# find_spec, and for every child process.
HIDDEN = (
    "torch", "torchaudio", "pytorch_lightning", "lightning", "mlflow", "feast", "evidently", "onnx",
    "onnxscript", "onnxruntime", "bentoml", "prometheus_client", "websockets", "starlette", "uvicorn",
    "faster_whisper", "ctranslate2", "espeakng_loader", "jiwer", "kaldi_native_fbank", "openai",
)  # fmt: skip
HIDE = f"""
import importlib.machinery as machinery
hidden, find = {HIDDEN!r}, machinery.PathFinder.find_spec
def find_spec(fullname, path=None, target=None):
    return None if fullname.partition(".")[0] in hidden else find(fullname, path, target)
machinery.PathFinder.find_spec = find_spec
"""


class DataOnly:
    """Commands in a folder, by an interpreter that has the extra ``data`` and nothing else."""

    def __init__(self, folder: Path, hiding: Path) -> None:
        hiding.mkdir()
        (hiding / "sitecustomize.py").write_text(HIDE)
        self.folder = folder
        self.variables = environment() | {"PYTHONPATH": f"{hiding}:{folder}"}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def succeeds(self, *arguments: str) -> str:
        answer = self(*arguments)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return copy_tree(tmp_path_factory.mktemp("data only") / "a work space")


@pytest.fixture(scope="module")
def python(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> DataOnly:
    return DataOnly(workspace.root, tmp_path_factory.mktemp("hiding") / "here")


def test_what_is_hidden_is_absent_and_named_with_its_extra(python: DataOnly) -> None:
    """The other tests prove nothing unless this holds."""
    for name in ("torch", "onnxruntime", "bentoml"):
        assert "ModuleNotFoundError" in python("-c", f"import {name}").stderr
    answer = python("-m", "pipelines.cli", "train", "--overfit-one-batch")
    assert answer.returncode == 2 and "bash deploy/setup.sh train" in answer.stderr


def test_recordings_become_splits_with_the_data_extra_alone(
    python: DataOnly, workspace: Workspace, tmp_path: Path
) -> None:
    folder = spoken(
        tmp_path / "speech",
        [f"{split}/{n}.flac" for split in ("train", "dev", "test") for n in (1, 2)],
    )
    # what only FFmpeg reads comes through the same extra
    (folder / "train/3.webm").write_bytes(encoded(speechlike(30, 1.2), "webm", "libopus", 16_000))
    (folder / "train/3.txt").write_text("turn the light off")
    told = python.succeeds(
        "-m", "pipelines.cli", "corpus", "add", str(folder), "--name", "own", "--licence", "MIT",
        "--workers", "2", "--json",
    )  # fmt: skip
    assert json.loads(told)["new"] == 7
    path = workspace.root / "params.yaml"
    params: dict[str, Any] = yaml.safe_load(path.read_text())
    params["ingest"]["corpora"] = ["own"]
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    for stage in ("code", "ingest", "validate", "split"):
        python.succeeds("-m", f"pipelines.{stage}")
    figures = workspace.read_json("data/reports/split.json")["figures"]
    assert figures["utterances"] == {"train": 3, "dev": 2, "test": 2}
    assert workspace.read_json("data/reports/validate.json")["figures"]["success"] is True
    listed = python.succeeds("-m", "pipelines.cli", "corpus", "list")
    assert listed.startswith("own ") and "7 utterances" in listed


def test_a_corpus_goes_through_a_remote_to_a_fresh_clone_bit_for_bit(
    python: DataOnly, workspace: Workspace, tmp_path: Path
) -> None:
    folder = spoken(tmp_path / "speech", [f"train/{n}.wav" for n in range(3)], seed=40)
    python.succeeds(
        "-m", "pipelines.cli", "corpus", "add", str(folder), "--name", "shared", "--licence", "MIT"
    )  # fmt: skip
    python.succeeds("-m", "dvc", "remote", "add", "-d", "store", str(tmp_path / "remote folder"))
    pointer = "data/shards/shared.dvc"
    assert f"?? {pointer}" in workspace.git("status", "--short", "-uall")
    commit(workspace, "a corpus")
    python.succeeds("-m", "dvc", "push", "--quiet", pointer)

    clone = tmp_path / "a clone"
    workspace.git("clone", "--quiet", str(workspace.root), str(clone))
    assert (clone / pointer).is_file() and not (clone / "data/shards/shared").exists()
    python.succeeds("-m", "dvc", "--cd", str(clone), "pull", "--quiet", pointer)
    there, here = (place / "data/shards/shared" for place in (clone, workspace.root))
    assert tree_digest(there) == tree_digest(here)
    names = sorted(path.name for path in there.iterdir())
    assert names[:2] == ["datasheet.json", "manifest.parquet"] and names[2].endswith(".tar")
    assert verify_shard(there / names[2]) == verify_shard(here / names[2])
