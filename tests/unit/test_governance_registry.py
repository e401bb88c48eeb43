"""The registry against a real MLflow store in SQLite; its first migration takes many seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from governance.canonical import tree_digest
from governance.errors import AuricleError, ConfigError
from governance.registry import ModelVersion, Registry
from tests.support_registry import datasets, standing

pytestmark = pytest.mark.slow
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a store with spaces")


@pytest.fixture(scope="module")
def opening(store: Path) -> "subprocess.CompletedProcess[str]":
    """The store is made by another process, whose output is kept."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom governance.registry import Registry\n"
        "root = Path(sys.argv[1])\nregistry = Registry(root / 'mlflow.db', root / 'artifacts')\n"
        "registry.finish(registry.start_run('auricle', 'first', {}))\n"
    )
    root = Path(__file__).parents[2]
    environment = dict(os.environ) | {"PYTHONPATH": str(root), "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-c", code, str(store)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def registry(store: Path, opening: "subprocess.CompletedProcess[str]") -> Registry:
    assert opening.returncode == 0, opening.stderr
    return Registry(store / "mlflow.db", store / "artifacts")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "bundle.json").write_text('{"variant": "int8"}')
    (folder / "offline.onnx").write_bytes(bytes(1000))
    return folder


@pytest.fixture(scope="module")
def run_id(registry: Registry, bundle: Path) -> str:
    run = registry.start_run("auricle", "train", {"git": "c0ffee"})
    registry.log_artifacts(run, bundle, "bundle")
    return run


def test_migrations_and_deprecations_are_silent(
    opening: "subprocess.CompletedProcess[str]",
) -> None:
    noise = [line for line in opening.stderr.splitlines() if "alembic" in line or "INFO" in line]
    assert noise == [] and opening.stdout == ""


def test_params_metrics_and_tags_arrive(registry: Registry, run_id: str) -> None:
    many = {f"key_{number}": number for number in range(130)}
    registry.log_params(run_id, {"train": {"steps": 3, "speeds": (0.9, 1.0)}, "long": "x" * 7000})
    registry.log_params(run_id, many)
    registry.log_params(run_id, {"train": {"steps": 3}})  # the same again is fine
    registry.log_metrics(run_id, {"wer.stream": 0.5}, step=1)
    registry.log_metrics(run_id, {"wer.stream": 0.25, "wer é (%)": 1}, step=2)
    run = registry._client.get_run(run_id)
    assert run.data.params["train.steps"] == "3" and run.data.params["train.speeds"] == "[0.9, 1.0]"
    assert len(run.data.params["long"]) == 6000 and run.data.params["key_129"] == "129"
    assert run.data.metrics == {"wer.stream": 0.25, "wer _ ___": 1.0}
    assert run.data.tags["git"] == "c0ffee"
    history = registry._client.get_metric_history(run_id, "wer.stream")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]


def test_datasets_are_inputs_of_the_run_and_found_by_their_digest(
    registry: Registry, run_id: str
) -> None:
    registry.log_dataset(
        run_id, name="barista", digest=DIGEST, source="data/shards/barista", context="training"
    )
    assert datasets(registry, run_id) == [
        {
            "name": "barista",
            "context": "training",
            "uri": "dvc://data/shards/barista",
            "digest": DIGEST,
        }
    ]
    experiment = registry._client.get_experiment_by_name("auricle").experiment_id
    query = f"dataset.digest = '{DIGEST.removeprefix('sha256:')[:36]}'"
    found = registry._client.search_runs([experiment], filter_string=query)
    assert [run.info.run_id for run in found] == [run_id]


def test_mlflow_itself_reads_the_dataset_source_back(registry: Registry, run_id: str) -> None:
    from mlflow.data import get_source

    entry = registry._client.get_run(run_id).inputs.dataset_inputs[0]
    assert get_source(entry.dataset).load() == "data/shards/barista"


def test_a_version_is_the_logged_bundle_byte_for_byte(
    registry: Registry, run_id: str, bundle: Path
) -> None:
    digest = tree_digest(bundle)
    first = registry.register_version("auricle", run_id, "bundle", {"digest": digest}, "first")
    second = registry.register_version("auricle", run_id, "bundle", {"digest": "x"}, "second")
    assert second == first + 1
    registry.set_alias("auricle", "champion", first)
    registry.set_version_tags("auricle", first, {"bento": "auricle:1"})
    found = standing(registry, "auricle", "champion")
    assert (found.version, found.run_id, found.description) == (first, run_id, "first")
    assert found.tags == {"digest": digest, "bento": "auricle:1"}
    assert found.folder is not None and tree_digest(found.folder) == digest
    assert [entry.version for entry in registry.versions("auricle")][:2] == [second, first]
    registry.set_alias("auricle", "champion", second)
    assert registry.aliases("auricle") == {"champion": second}
    assert {first, second} <= {entry.version for entry in registry.versions("auricle")}


def test_what_is_not_there_is_said_with_a_mend(registry: Registry, run_id: str) -> None:
    assert registry.aliases("nobody") == {} and not registry.exists("0" * 32)
    assert registry.exists(run_id) and registry.versions("nobody") == []
    with pytest.raises(ConfigError, match="no version 999"):
        registry.set_alias("auricle", "champion", 999)
    with pytest.raises(ConfigError, match="log the bundle's folder first"):
        registry.register_version("auricle", run_id, "elsewhere", {}, "")
    with pytest.raises(ConfigError, match="nothing to log"):
        registry.log_artifacts(run_id, Path("no such folder"))


def test_a_run_ends_as_told(registry: Registry) -> None:
    run = registry.start_run("auricle", "broken", {})
    registry.finish(run, "FAILED")
    assert registry._client.get_run(run).info.status == "FAILED"


def test_telemetry_is_off(registry: Registry) -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()


def test_folders_and_garbage_are_refused_as_a_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MLflow refuses folders"):
        Registry("file:///tmp/mlruns", tmp_path / "artifacts")
    garbage = tmp_path / "mlflow.db"
    garbage.write_bytes(b"this is not a database" * 100)
    with pytest.raises(AuricleError, match="cannot be opened"):
        Registry(garbage, tmp_path / "artifacts")


def test_a_version_elsewhere_has_no_folder_here() -> None:
    version = ModelVersion(
        name="a", version=1, run_id="r", source="s3://bucket/a", tags={}, description=""
    )
    assert version.folder is None
