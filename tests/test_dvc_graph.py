"""``dvc.yaml`` = ``params.yaml`` = ``pipelines/``; a statement reruns its importers and no other."""

import importlib
import json
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import grimp
import pytest
import yaml

from pipelines import _paths, code
from serving.packaging import bento

ROOT = Path(__file__).resolve().parent.parent
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
STYLE = "training/reporting/style.css"


def _names(items: list[object]) -> list[str]:
    return [next(iter(item)) if isinstance(item, dict) else str(item) for item in items]


def test_stages_params_and_modules_are_the_same() -> None:
    stages = set(GRAPH) - {"code"}
    assert stages == set(code.STAGES) == set(PARAMS)
    assert all((ROOT / "pipelines" / f"{stage}.py").exists() for stage in GRAPH)


@pytest.mark.parametrize("stage", [name for name in GRAPH if name != "code"])
def test_stage_runs_its_module_and_depends_on_its_statements(stage: str) -> None:
    entry = GRAPH[stage]
    assert entry["cmd"] == f"python -m pipelines.{stage}"
    assert f"data/code/{stage}.json" in entry["deps"]
    assert f"data/code/{stage}.json" in _names(GRAPH["code"]["outs"])
    assert f"data/reports/{stage}.json" in _names(entry["outs"])
    assert stage in {str(name).split(".")[0] for name in entry["params"]}


def test_paths_of_dvc_are_the_paths_of_the_code() -> None:
    known = {str(value) for value in vars(_paths).values() if isinstance(value, Path)}
    known |= {f"data/code/{stage}.json" for stage in code.STAGES}
    known |= {f"data/reports/{stage}.json" for stage in code.STAGES}
    known |= {"data/reports/decoder.json", "data/reports/model_card.html", "governance/policy.yaml"}
    known |= {"features/store/feature_store.yaml", STYLE, *map(str, bento.DATA_FOLDERS)}
    for stage, entry in GRAPH.items():
        unknown = set(entry.get("deps", [])) | set(_names(entry["outs"]))
        assert unknown <= known, f"{stage}: {unknown - known}"


@pytest.mark.parametrize("stage", ["gate", "package"])
def test_a_verdict_is_never_replayed_from_the_run_cache(stage: str) -> None:
    """DVC keeps no run of a stage with a persistent output: it is run, or it is unchanged."""
    outs = {
        name: flags
        for out in GRAPH[stage]["outs"]
        if isinstance(out, dict)
        for name, flags in out.items()
    }
    assert outs[f"data/reports/{stage}.json"] == {"persist": True}


@pytest.mark.parametrize("stage", [name for name in GRAPH if name != "code"])
def test_a_report_that_a_stage_reads_is_among_its_deps(stage: str) -> None:
    """What `read_record(paths.report("x"))` names, in the stage's own module."""
    text = (ROOT / "pipelines" / f"{stage}.py").read_text()
    read = set(re.findall(r"""read_record\(paths\.report\("(\w+)"\)""", text)) - {stage}
    missing = {f"data/reports/{name}.json" for name in read} - set(GRAPH[stage]["deps"])
    assert not missing


@pytest.mark.parametrize("stage", [name for name in GRAPH if name != "code"])
def test_a_record_names_every_input_that_dvc_knows(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stage reads of other stages has a digest in its record, so that lineage sees it."""
    module = importlib.import_module(f"pipelines.{stage}")
    named: dict[str, Path] = {}
    monkeypatch.setattr(module, "run_stage", lambda *_, inputs, outputs: named.update(inputs))
    module.main()
    deps = {name for name in GRAPH[stage]["deps"] if name.startswith("data/")}
    known = {path.as_posix() for path in named.values()}
    assert known >= deps - {f"data/code/{stage}.json"}
    assert known <= deps, "DVC would not run the stage again for these"


def test_every_output_has_one_maker() -> None:
    outs = [name for entry in GRAPH.values() for name in _names(entry["outs"])]
    assert len(outs) == len(set(outs))


def test_closures_cover_every_import() -> None:
    """The digests cover what grimp finds walking forward, module by module (another algorithm)."""
    graph = grimp.build_graph(*code.PACKAGES, cache_dir=None)
    for stage, modules in code.closures().items():
        seen, queue = set(), [f"pipelines.{stage}", *code.ALSO_RUNS.get(stage, ())]
        while queue:
            name = queue.pop()
            if name not in seen:
                seen.add(name)
                queue.extend(graph.find_modules_directly_imported_by(name))
        assert modules == seen


def test_every_file_besides_modules_is_a_dep() -> None:
    """Style sheets, pages, definitions: what a module reads from beside it reruns its stage."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", *code.PACKAGES], cwd=ROOT, capture_output=True, check=True
    )
    files = [name for name in listing.stdout.decode().split("\0") if name]
    files = [name for name in files if not name.endswith(".py")]
    deps = {dep for entry in GRAPH.values() for dep in entry.get("deps", [])}
    assert STYLE in files
    unwatched = [
        name for name in files if not deps & {name, *map(str, PurePosixPath(name).parents)}
    ]
    assert not unwatched


def test_the_style_of_the_report_reruns_whoever_renders_it() -> None:
    renderers = {name for name, found in code.closures().items() if "training.report" in found}
    assert renderers == {name for name, entry in GRAPH.items() if STYLE in entry.get("deps", [])}


def test_what_a_bento_carries_besides_modules_reruns_the_package() -> None:
    assert set(map(str, bento.DATA_FOLDERS)) <= set(GRAPH["package"]["deps"])


def test_an_upgraded_package_of_the_bento_reruns_the_package_stage_alone(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _digests(copy)
    for name in ("onnxruntime", "bentoml"):
        assert json.loads(before["package"])[f"{name}=="] == version(name)

    def upgraded(name: str) -> str:
        return "999" if name == "onnxruntime" else version(name)

    monkeypatch.setattr(code, "version", upgraded)
    after = _digests(copy)
    assert {stage for stage in code.STAGES if after[stage] != before[stage]} == {"package"}
    pinned = {pin.split("==")[0] for pin in bento.requirements("cpu")}
    assert pinned <= set(bento.PINNED)


def test_a_package_that_is_not_installed_here_stops_no_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(code, "version", absent)
    assert set(code.pins().values()) == {"not installed"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in code.PACKAGES:
        shutil.copytree(
            ROOT / package,
            tmp_path / package,
            ignore=lambda folder, names: [
                n
                for n in names
                if not (n.endswith(".py") or (Path(folder) / n).is_dir()) or n == "__pycache__"
            ],
        )
    return tmp_path


def _digests(root: Path) -> dict[str, str]:
    code.main(root=root, out=root / "out")
    return {stage: (root / "out" / f"{stage}.json").read_text() for stage in code.STAGES}


def test_a_comment_reruns_nothing_and_a_statement_its_importers(copy: Path) -> None:
    before = _digests(copy)
    target = copy / "data" / "scoring.py"
    target.write_text("# a comment\n" + target.read_text().replace('"""', '"""Changed words. ', 1))
    assert _digests(copy) == before
    target.write_text(target.read_text() + "\nADDED = 1\n")
    after = _digests(copy)
    changed = {stage for stage in code.STAGES if after[stage] != before[stage]}
    importers = {stage for stage, modules in code.closures().items() if "data.scoring" in modules}
    assert changed == importers
    assert "evaluate" in changed and "ingest" not in changed
