"""The documents name what is there, and what they name is there."""

import argparse
import ast
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from prometheus_client import CollectorRegistry

from governance.policy import load_policy
from pipelines.cli import build_parser
from serving.metrics import ServiceMetrics

ROOT = Path(__file__).resolve().parent.parent
README, ARCHITECTURE = ROOT / "README.md", ROOT / "ARCHITECTURE.md"
MANUAL = [README, ARCHITECTURE, *sorted((ROOT / "docs").glob("*.md"))]
ALL = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "adr", ROOT / "benchmarks" / "results")
    for path in folder.glob("*.md")
)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_BARS = "| bar | wanted | measured |  |"  # as `benchmarks/_report.py` writes it
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)
_DATED = re.compile(r"benchmarks/results/[a-z0-9_-]*\d{4}-\d{2}-\d{2}[a-z0-9_-]*\.(?:md|json)")


def _text() -> str:
    return "\n".join(path.read_text() for path in MANUAL)


def _commands(parser: argparse.ArgumentParser, prefix: str) -> Iterator[tuple[str, str]]:
    """(``auricle corpus add``, its target) for every command that can be given."""
    nested = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    for action in nested:
        for name, child in action.choices.items():
            yield from _commands(child, f"{prefix} {name}")
    if not nested:
        yield prefix, parser.get_default("target")


def test_every_command_is_described() -> None:
    commands = dict(_commands(build_parser(), "auricle"))
    assert len(commands) > 12 and all(commands.values())
    missing = [name for name in commands if f"`{name}" not in README.read_text()]
    assert not missing


def test_no_document_names_a_command_that_is_not_there() -> None:
    known = {name.split()[1] for name in dict(_commands(build_parser(), "auricle"))}
    for path in ALL:
        named = set(re.findall(r"`auricle ([a-z]+)", path.read_text()))
        assert named <= known, f"{path.name}: {named - known}"


def test_every_option_that_a_document_names_is_there() -> None:
    """Options in backticks after a command, as in `auricle run --again STAGE`."""
    lines = re.findall(r"`auricle ([a-z][a-z ]*?)((?: --?[a-z][^`]*)?)`", _text())
    parser = build_parser()
    named = 0
    for command, rest in lines:
        options = _options_of(parser, command.split())
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", rest):
            named += 1
            assert option in options, f"auricle {command} has no {option}"
    assert named


def test_the_beginning_of_an_option_is_no_option() -> None:
    options = _options_of(build_parser(), ["eval"])
    assert "--json" in options and "--js" not in options
    assert "--json" not in _options_of(build_parser(), ["serve"]), "options of another command"


def _options_of(parser: argparse.ArgumentParser, words: list[str]) -> set[str]:
    for word in words:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                parser = action.choices[word]
    return {option for action in parser._actions for option in action.option_strings}


def test_every_section_of_the_parameters_is_described() -> None:
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    missing = [name for name in sections if f"`{name}`" not in _text()]
    assert not missing


def test_every_gate_is_described() -> None:
    gates = load_policy(ROOT / "governance" / "policy.yaml").gates
    missing = [gate.name for gate in gates if f"`{gate.name}`" not in _text()]
    assert not missing


def test_every_metric_is_described() -> None:
    page = ServiceMetrics(CollectorRegistry()).exposition().decode()
    names = {
        name
        for name in re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE)
        if not name.endswith("_created")
    }
    assert "auricle_queue_seconds" in names
    text = _text()
    assert not sorted(name for name in names if name not in text)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_resolves(path: Path) -> None:
    broken = []
    for target in _LINK.findall(_without_code(path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / unquote(name)).resolve() if name else path
        inside = place.is_relative_to(ROOT) and place.exists()
        if not inside or (anchor and place.suffix == ".md" and anchor not in _anchors(place)):
            broken.append(target)
    assert not broken


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def _anchors(path: Path) -> set[str]:
    """Anchors as GitHub makes them from headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in _HEADING.findall(path.read_text())
    }


def test_every_invariant_names_a_test_that_exists() -> None:
    _, found, section = ARCHITECTURE.read_text().partition("## Invariants")
    assert found
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.partition("\n## ")[0].splitlines()
        if line.startswith("|") and "---" not in line
    ][1:]
    assert len(rows) > 10
    for row in rows:
        match = re.fullmatch(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", row[-1])
        assert match, f"no test stands behind: {row[0]}"
        path = ROOT / match[1]
        assert path.exists(), match[0]
        tests = {
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert match[2] in tests, f"{match[0]} holds: {row[0]}"


def test_dated_benchmark_tables_that_the_readme_names_exist() -> None:
    named = sorted({match[0] for match in _DATED.finditer(README.read_text())})
    assert named, "the README's results come from dated files of benchmarks/results/"
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_readmes_bars_are_those_of_the_newest_page_of_real_speech() -> None:
    _, found, section = README.read_text().partition("## Measured")
    assert found
    ours = _first_table(section)
    page = _first_table(_real_speech().read_text())
    assert ours and ours.keys() <= page.keys(), "a row that the page does not have"
    differing = {label: (row, page[label]) for label, row in ours.items() if row != page[label]}
    assert not differing
    missed = {label for label, row in page.items() if "MISSED" in row[-1]}
    assert missed <= ours.keys(), "a bar that was missed is left out"


def test_the_page_of_real_speech_was_made_with_the_parameters_of_the_recipe() -> None:
    """What the page says of its training is what `make prove` would do today."""
    recipe = yaml.safe_load((ROOT / "benchmarks" / "barista-params.yaml").read_text())
    told = re.search(
        r"^- training: .*?\b([\d,]+) steps\b", _real_speech().read_text(), re.MULTILINE
    )
    assert told and int(told[1].replace(",", "")) == recipe["train"]["steps"]


def _real_speech() -> Path:
    pages = sorted((ROOT / "benchmarks" / "results").glob("barista-*.md"))
    assert pages, "`make prove` writes a page for real speech"
    return pages[-1]  # dates sort as text


def _first_table(text: str) -> dict[str, list[str]]:
    """Label -> the other cells, for each row of a page's first table of bars."""
    lines = text.splitlines()
    assert _BARS in lines, f"no table that begins with {_BARS}"
    at = lines.index(_BARS)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in takewhile(lambda line: line.startswith("|"), lines[at + 2 :])
    ]
    assert len({row[0] for row in rows}) == len(rows), "a label stands twice"
    return {row[0]: row[1:] for row in rows}


def test_no_document_speaks_of_a_machine_path() -> None:
    for path in ALL:
        assert not re.search(r"/(?:home|root|Users|work)/", path.read_text()), path.name
