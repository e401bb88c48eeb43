"""The command line: light, complete, and plain about errors."""

import argparse
import ast
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import soundfile

from pipelines import cli
from tests.support_bundle import babble, make_bundle
from tests.support_workspace import command, environment, python

ROOT = Path(__file__).resolve().parent.parent.parent
Capture = pytest.CaptureFixture[str]


def leaves(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser, str]]:
    """(words of the command, its parser, its line in the list of commands)."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, child in action.choices.items():
                yield (*words, name), child, lines[name]
                yield from leaves(child, (*words, name))


COMMANDS = list(leaves(cli.build_parser()))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace where nothing has run yet; this process stands in it."""
    folder = tmp_path / "an empty one"
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    return folder


# Shape.


def test_help_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys\nbefore = set(sys.modules)\nfrom pipelines.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "found = set(sys.modules) - before\n"
        "print(sorted({n.split('.')[0] for n in found} - sys.stdlib_module_names - {'pipelines'}),"
        " sorted(n for n in found if n.startswith('pipelines.')), file=sys.stderr)"
    )
    answer = python(code)
    foreign, ours = answer.stderr.strip().split("] ", 1)
    assert foreign == "["
    options = [name for name in ast.literal_eval(ours) if not name.endswith("_options")]
    assert options == ["pipelines._numbers", "pipelines.cli"]
    assert "usage: auricle" in answer.stdout


@pytest.mark.parametrize("words", [words for words, _, _ in COMMANDS], ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--help"])
    assert ended.value.code == 0
    assert f"usage: auricle {' '.join(words)}" in capsys.readouterr().out
    _, parser, line = next(found for found in COMMANDS if found[0] == words)
    assert line
    for action in parser._actions:
        is_list = isinstance(action, argparse._SubParsersAction)
        assert is_list or action.help, f"{words}: {action.dest} says nothing"


def test_every_command_has_its_function() -> None:
    for words, parser, _ in COMMANDS:
        if (target := parser.get_default("target")) is None:  # a group that asks for an action
            lists = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
            assert lists and lists[0].required, f"auricle {' '.join(words)}"
            continue
        module, _, function = target.partition(":")
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        names = {
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        assert function in names, f"auricle {' '.join(words)}"


def test_without_a_command_the_help_is_shown(capsys: Capture) -> None:
    status, out, _ = command(capsys)
    assert status == 2 and "transcribe" in out


def test_an_unknown_command_is_refused_with_the_known_ones(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["transcrybe"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert "transcrybe" in err and "transcribe" in err


# Where it stands.


def test_outside_a_workspace(tmp_path: Path) -> None:
    """Installed somewhere without a source tree around it."""
    for package in ("pipelines", "governance"):
        shutil.copytree(
            ROOT / package,
            tmp_path / "site" / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    (tmp_path / "elsewhere").mkdir()
    code = "import sys; from pipelines.cli import main; sys.exit(main(['doctor']))"
    answer = python(code, cwd=tmp_path / "elsewhere", path=tmp_path / "site")
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith(f"auricle: {tmp_path / 'elsewhere'}: no workspace here")
    assert "Mend: cd into a clone" in answer.stderr


def test_paths_are_meant_from_where_the_user_stands(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (empty / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(empty / "deep" / "er")
    status, _, err = command(capsys, "transcribe", "a.wav", "--model", "../bundle")
    assert Path.cwd() == empty
    assert status == 2 and f"auricle: {empty / 'deep' / 'bundle'}: neither" in err


# Errors.


@pytest.mark.parametrize(
    ("arguments", "item", "mend"),
    [
        ("promote", "ledger: nothing was packaged yet", "`auricle run`"),
        ("lineage", "auricle@champion: ", "auricle promote"),
        ("lineage other@staging", "other@staging: ", "auricle promote"),
        ("transcribe a.wav", "auricle@champion: no version was promoted", "`make demo`"),
        ("eval nowhere", "nowhere: there is no such folder", "name a corpus folder"),
        ("up", "auricle@champion: no version was promoted", "`auricle run`"),
        ("serve", "auricle@champion: no version was promoted", "`auricle run`"),
        ("run featurise", "featurise: no such stage", "featurize"),
        ("run --again code", "code: no such stage", "synth"),
        ("corpus add nowhere", "nowhere: there is nothing there", "check the path"),
        ("corpus add . --name builtin", "builtin: no usable corpus name", "is taken"),
        ("corpus add . --name Ü", "Ü: no usable corpus name", "--name"),
        ("train", ".dvc: there is no pipeline in this folder", "a clone of Auricle"),
        ("run", ".dvc: there is no pipeline in this folder", "a clone of Auricle"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_status_2(
    empty: Path, capsys: Capture, arguments: str, item: str, mend: str
) -> None:
    status, out, err = command(capsys, *arguments.split())
    assert (status, out) == (2, "")
    assert err.startswith("auricle: ") and err.count("\n") == 1
    assert item in err and mend in err


@pytest.mark.parametrize(
    ("arguments", "option", "expected"),
    [
        ("demo --recordings -3", "--recordings", "1 or more, found '-3'"),
        ("corpus add . --workers -1", "--workers", "1 or more"),
        ("train --steps 0", "--steps", "1 or more"),
        ("train --steps 1.5", "--steps", "a whole number"),
        ("train --limit-minutes 0", "--limit-minutes", "above 0"),
        ("train --limit-minutes nan", "--limit-minutes", "above 0"),
        ("train --limit-minutes soon", "--limit-minutes", "a number is expected"),
        ("promote --version 0", "--version", "1 or more"),
        ("up --port 70000", "--port", "1 to 65535"),
        ("up --mlflow-port 0", "--mlflow-port", "1 to 65535"),
        ("serve --port -1", "--port", "1 to 65535"),
        ("keys create --tenant a --days -1", "--days", "above 0"),
        ("keys rotate 3f --overlap-hours -1", "--overlap-hours", "0 or more"),
        ("keys tenant a --streams -1", "--streams", "0 or more"),
        ("keys tenant a --audio-seconds-per-day inf", "--audio-seconds-per-day", "0 or more"),
        ("keys access --last 0", "--last", "1 or more"),
        ("bench serve --streams 0", "--streams", "1 or more"),
        ("bench serve --rate 0", "--rate", "above 0"),
        ("bench serve --rate 1 --seconds -5", "--seconds", "above 0"),
    ],
)
def test_a_number_that_an_option_cannot_take_is_refused_by_the_options_name(
    capsys: Capture, arguments: str, option: str, expected: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments.split())
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: " in last and expected in last and "invalid" not in last


def test_no_option_takes_a_number_unchecked() -> None:
    kinds = [action.type for _, parser, _ in COMMANDS for action in parser._actions]
    assert kinds and not {int, float} & set(kinds)


def test_an_empty_workspace_has_nothing_to_list_and_nothing_to_stop(
    empty: Path, capsys: Capture
) -> None:
    assert command(capsys, "corpus", "list", "--json")[:2] == (0, "[]\n")
    assert command(capsys, "audit", "list")[:2] == (0, "")
    status, out, _ = command(capsys, "audit", "verify", "--json")
    assert status == 0 and json.loads(out)["events"] == 0
    status, out, _ = command(capsys, "down")
    assert status == 0 and out.count("was not running") == 2


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [("torch", ["train"], "train"), ("pyarrow", ["corpus", "list"], "data")],
)
def test_a_missing_package_names_the_extra_that_brings_it(
    empty: Path, package: str, arguments: list[str], extra: str
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from pipelines.cli import main; sys.exit(main({arguments!r}))"
    )
    answer = python(code, cwd=empty)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith(f"auricle: {package}: this command needs the extra '{extra}'")
    assert f"bash deploy/setup.sh {extra}" in answer.stderr


def test_every_package_of_an_extra_has_a_mend() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    modules: dict[str, list[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(distribution.lower().replace("_", "-"), []).append(module)
    for extra in ("data", "serve", "synth", "train"):
        for requirement in extras[extra]:
            name = requirement.split(">")[0].split("[")[0].strip()
            if not name.startswith("auricle"):
                brings = {cli._EXTRA_OF.get(module) for module in modules.get(name, [])}
                assert brings & {"data", "serve", extra}, name


def test_a_missing_module_of_our_own_is_a_defect(empty: Path) -> None:
    code = (
        "import sys; sys.modules['pipelines.promote'] = None\n"
        "from pipelines.cli import main; sys.exit(main(['promote']))"
    )
    answer = python(code, cwd=empty)
    assert answer.returncode == 1 and "Traceback" in answer.stderr
    assert "deploy/setup.sh" not in answer.stderr


def test_a_lean_install_transcribes(empty: Path, tmp_path: Path) -> None:
    """With the extra `serve` alone: no torch, no MLflow, no DVC, no Arrow."""
    bundle = make_bundle(tmp_path / "bundle")
    soundfile.write(tmp_path / "a.wav", babble(1.0), 16_000)
    absent = ("torch", "mlflow", "feast", "dvc", "pyarrow", "pandas", "great_expectations", "grimp")
    arguments = ["transcribe", str(tmp_path / "a.wav"), "--model", str(bundle), "--json"]
    code = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
        f"from pipelines.cli import main; sys.exit(main({arguments!r}))"
    )
    answer = python(code, cwd=empty)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["text"]


def test_a_reader_that_goes_away_is_no_error(empty: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "audit", "verify"],
        cwd=empty,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0


def test_doctor_as_json(empty: Path, capsys: Capture) -> None:
    status, out, _ = command(capsys, "doctor", "--json")
    findings = json.loads(out)
    assert {"python", "serve", "train", "machine", "disk", "gpu", "service", "mlflow", "dvc"} <= {
        finding["subject"] for finding in findings
    }
    for finding in findings:
        assert set(finding) == {"level", "subject", "detail", "mend"}
        assert finding["level"] in ("ok", "note", "wrong")
        assert finding["level"] == "ok" or finding["mend"], finding
    (model,) = [finding for finding in findings if finding["subject"] == "model"]
    assert (model["level"], model["mend"]) == ("note", "make demo")
    (dvc,) = [finding for finding in findings if finding["subject"] == "dvc"]
    assert dvc["level"] == "wrong" and status == 2


def test_doctor_keeps_its_lines_whole_in_a_pipe_and_notes_what_was_never_promoted(
    empty: Path,
) -> None:
    code = (
        "from pipelines._champion import open_ledger\n"
        "open_ledger().append('package', {'version': 1}, actor='test')\n"
        "import sys; from pipelines.cli import main; sys.exit(main(['doctor']))"
    )
    answer = python(code, cwd=empty)
    lines = answer.stdout.splitlines()
    assert all(line.startswith(("ok ", "note ", "wrong ", "  ")) for line in lines), lines
    assert max(map(len, lines)) > 80
    at = next(at for at, line in enumerate(lines) if " model " in line)
    assert lines[at].startswith("note") and "no version was promoted" in lines[at]
    assert lines[at + 1].strip().startswith("mend: `make demo`")


def test_one_python_is_meant_everywhere() -> None:
    """What is tested: the package, its set-up, the doctor and the tools name the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11,<3.12"
    bounds = "(3, 11) <= sys.version_info < (3, 12)"
    for name in ("deploy/setup.sh", "pipelines/doctor.py"):
        assert bounds in (ROOT / name).read_text(), name
    assert project["tool"]["mypy"]["python_version"] == "3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
