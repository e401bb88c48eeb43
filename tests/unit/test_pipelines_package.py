"""Stage `package` with real bundles, MLflow and ledger: a candidate never harms an earlier one.

Every verdict refuses here, so no bento is built; bentos are proven by the end-to-end test.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.bundle import Bundle, write_bundle
from governance.canonical import tree_digest
from governance.records import StageRecord, read_record, record_digest, write_record
from governance.registry import Registry
from pipelines import _paths as paths
from pipelines import package
from pipelines._champion import newest_packages, packaged_here
from tests.support_bundle import make_bundle
from tests.support_registry import datasets, standing
from tests.support_workspace import command

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent.parent
Capture = pytest.CaptureFixture[str]
WER = {"low": 0.1, "point": 0.2, "high": 0.3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; its first migration takes many seconds."""
    folder = tmp_path_factory.mktemp("store")
    Registry(folder / "mlflow.db", folder / "artifacts")
    return folder / "mlflow.db"


@pytest.fixture
def workspace(tiny: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace where everything up to `gate` has run; the training's MLflow run exists."""
    root = tmp_path / "a work space"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, root / name)
    monkeypatch.chdir(root)
    paths.MLFLOW_DB.parent.mkdir(parents=True)
    shutil.copyfile(store, paths.MLFLOW_DB)
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    run_id = registry.start_run(paths.EXPERIMENT, "train", {})
    paths.REPORTS.mkdir(parents=True)
    paths.EVALUATION_HTML.write_text("<p>report</p>")
    record("train", figures={"run_id": run_id, "curves": {"loss": [[1, 2.0], [2, 1.0]]}})
    record("featurize", figures={"fingerprint": "fs1-0"})
    test = {"full_lm": {"wer": WER, "slices": {"speaker": [{"value": "anna", "wer": WER}]}}}
    record("evaluate", figures={"test": test, "wer_file": 0.2, "wer_stream_lm": 0.25})
    export(tiny, "spoken numbers")
    for stage in ("synth", "ingest", "validate", "split", "tokens", "publish", "quantize"):
        record(stage)
    record("benchmark")
    paths.DATA_DOCS.mkdir()
    (paths.DATA_DOCS / "index.html").write_text("<p>checks</p>")
    judge("sha256:strict")
    return root


def record(stage: str, **fields: Any) -> StageRecord:
    inputs = {"manifest": "sha256:m", "features": "sha256:f"} | fields.pop("inputs", {})
    made = StageRecord(
        stage=stage,
        started_at="now",
        wall_s=1,
        environment={"git_commit": "c0ffee"},
        inputs=inputs,
        **fields,
    )
    write_record(paths.report(stage), made)
    return made


def export(tiny: Path, domain: str) -> None:
    """What `export` and `quantize` leave, with another domain: other bytes of the same training."""
    for variant in ("fp32", "fp16", "int8"):
        source = Bundle.load(tiny)
        config = replace(source.config, variant=variant, domain=domain)
        files = {name: source.path(name) for name in source.files}
        write_bundle(paths.MODELS / variant, config, files)
    half = {"test_wer": {**WER, "point": 0.22}, "test_wer_stream": {**WER, "point": 0.26}}
    record("export", figures={"domain": domain, "fp16": half})


def judge(policy: str, *, passed: bool = False) -> None:
    reason = {
        "gate": "wer_file",
        "metric": "evaluate.wer_file",
        "value": 0.9,
        "op": "<=",
        "threshold": 0.3,
        "unit": "WER",
        "outcome": "passed" if passed else "failed",
        "why": "too many errors",
    }
    verdicts = {
        name: {"variant": name, "passed": passed, "reasons": [reason]}
        for name in ("fp32", "fp16", "int8")
    }
    record(
        "gate",
        inputs={"policy": policy},
        params={"alias": "champion"},
        figures={"verdicts": verdicts, "compared_with": None},
    )


def run() -> dict[str, Any]:
    package.main()
    return read_record(paths.report("package"), stage="package").figures


def test_the_next_candidate_leaves_an_earlier_versions_bytes_and_records(
    workspace: Path, tiny: Path
) -> None:
    first = run()["events"]["int8"]
    card = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS).versions("auricle")[0].description
    export(tiny, "street names")
    judge("sha256:milder")
    second = run()["events"]["int8"]
    assert second["version"] != first["version"] and second["run_id"] == first["run_id"]
    for event, domain, policy in (
        (first, "spoken numbers", "sha256:strict"),
        (second, "street names", "sha256:milder"),
    ):
        assert tree_digest(Path(event["bundle"])) == event["bundle_digest"]
        assert Bundle.load(Path(event["bundle"])).config.domain == domain
        gate = read_record(Path(event["records"]) / "gate.json")
        assert gate.inputs["policy"] == policy == event["policy"]
        assert record_digest(gate) and (Path(event["records"]) / "export.json").is_file()
    versions = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS).versions("auricle")
    by_number = {version.version: version for version in versions}
    for event in (first, second):
        folder = by_number[event["version"]].folder
        assert folder is not None and tree_digest(folder) == event["bundle_digest"]
    assert by_number[max(by_number)].description != card


def test_the_same_bytes_are_the_same_version_and_the_ledger_says_it_once(workspace: Path) -> None:
    first = run()
    known = newest_packages()
    assert run() == first and newest_packages() == known and len(known) == 3
    assert packaged_here()


def test_a_refused_variant_has_no_bento_and_fp16_a_verdict_of_its_own(workspace: Path) -> None:
    figures = run()
    assert figures["chosen"] == "" and figures["bentos"] == {}
    assert not (paths.BENTO_ROOT / "home").exists()
    assert len(set(figures["versions"].values())) == 3
    event = figures["events"]["fp16"]
    assert event["variant"] == "fp16" and event["refusals"] == ["wer_file: too many errors"]
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    (half,) = [v for v in registry.versions("auricle") if v.version == event["version"]]
    assert half.tags["wer_file"] == "0.2200" and half.tags["bento"] == "none"
    assert half.tags["policy"] == "sha256:strict" and "not been run on a GPU" in half.description


def test_a_store_that_is_younger_than_the_records_gets_one_run_that_stands_for_it(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(workspace, clone, ignore=shutil.ignore_patterns("state"))
    monkeypatch.chdir(clone)
    assert not packaged_here()
    first = run()
    assert packaged_here() and run() == first
    train = read_record(paths.report("train"))
    assert first["run_id"] != train.figures["run_id"]
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    assert {found["digest"] for found in datasets(registry, first["run_id"])} == {
        "sha256:m",
        "sha256:f",
    }
    assert len(registry._client.get_metric_history(first["run_id"], "loss")) == 2


def test_a_clone_packages_for_itself_and_then_promotes(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Outputs and records travel; ledger, MLflow and bentos are made anew from them."""
    judge("sha256:milder", passed=True)
    for name in ("serving", "features", "governance", "data"):  # what a bento is built from
        shutil.copytree(ROOT / name, name, dirs_exist_ok=True, ignore=only_python)
    figures = run()
    assert figures["chosen"] == "int8" and set(figures["bentos"]) == {"cpu", "gpu"}
    assert command(capsys, "promote")[0] == 0
    clone = tmp_path / "clone"
    shutil.copytree(workspace, clone, ignore=shutil.ignore_patterns("state"))
    monkeypatch.chdir(clone)
    status, out, err = command(capsys, "promote")
    assert (status, out) == (2, "") and "`auricle run --again package`" in err
    assert command(capsys, "transcribe", "a.wav")[2].count("`auricle run --again package`") == 1
    theirs = run()
    assert theirs["bentos"].keys() == figures["bentos"].keys()
    status, out, err = command(capsys, "promote", "--json")
    assert status == 0, err
    assert json.loads(out)["bundle_digest"] == figures["events"]["int8"]["bundle_digest"]
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    champion = standing(registry, "auricle", "champion")
    assert champion.tags["bento"] == theirs["bentos"]["cpu"]


def only_python(folder: str, names: list[str]) -> list[str]:
    """What `copytree` leaves out: everything but modules and the folders that hold them."""
    return [
        name
        for name in names
        if name == "__pycache__" or not (name.endswith(".py") or (Path(folder) / name).is_dir())
    ]
