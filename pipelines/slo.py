"""Operation ``slo``: objectives, what is left of their budgets, and the rules made from them."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from governance.canonical import write_atomic
from governance.errors import AuricleError, GateRefused
from serving.observe.budget import Budget, Prometheus, budgets
from serving.observe.dashboards import dashboards
from serving.observe.objectives import Objectives, read_objectives
from serving.observe.rules import rules

FOLDER = Path("deploy/observability")
_MADE = "# Made from slo.yaml by `auricle slo --write`. Change that file, not this one.\n"


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle slo``: status 3 where a budget is overspent."""
    objectives = load(FOLDER)
    if args.write:
        for path, text in made(objectives).items():
            write_atomic(FOLDER / path, text)
            sys.stdout.write(f"{FOLDER / path}\n")
        return 0
    if not args.prometheus:
        _print_objectives(objectives, as_json=args.json)
        return 0
    standings = budgets(objectives, Prometheus(url=args.prometheus))
    if args.json:
        sys.stdout.write(json.dumps([asdict(standing) for standing in standings]) + "\n")
    else:
        _print(standings, objectives.window_days)
    if spent := [standing.name for standing in standings if standing.is_spent]:
        raise GateRefused("the error budget is overspent", item=", ".join(spent))
    return 0


def load(folder: Path) -> Objectives:
    """``slo.yaml`` of a folder."""
    path = folder / "slo.yaml"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise AuricleError(f"cannot be read ({type(error).__name__})", item=str(path)) from None
    return read_objectives(document, item=str(path))


def made(objectives: Objectives) -> dict[str, str]:
    """File name -> text of everything that follows from the objectives."""
    text = yaml.safe_dump(rules(objectives), sort_keys=False, width=110)
    boards = {
        f"dashboards/{name}": json.dumps(board, indent=1) + "\n"
        for name, board in dashboards(objectives).items()
    }
    return {"rules.yaml": _MADE + text, **boards}


def _print_objectives(objectives: Objectives, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(objectives.model_dump_json() + "\n")
        return
    for one in objectives.objectives:
        share = f"{one.objective:.2%} of {objectives.window_days} days"
        sys.stdout.write(f"{one.name:14} {share:20} {one.promise}\n")
    sys.stdout.write("what is left of them: `auricle slo --prometheus URL`\n")


def _print(standings: list[Budget], days: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"error budgets, {days} days", title_justify="left")
    for column in ("objective", "promised", "events", "errors", "budget left", "burn 1h / 6h / 1d"):
        table.add_column(column, justify="left" if column == "objective" else "right")
    for one in standings:
        burns = " / ".join("-" if rate is None else f"{rate:g}" for rate in one.burn.values())
        style = "dim" if one.left is None else "red" if one.left < 0 else "green"
        left = "nothing happened" if one.left is None else f"{one.left:.1%}"
        errors = "-" if one.error_ratio is None else f"{one.error_ratio:.3%}"
        row = (one.name, f"{one.objective:.2%}", f"{one.events:.0f}", errors)
        table.add_row(*row, f"[{style}]{left}[/]", burns)
    Console(width=None if sys.stdout.isatty() else 110, highlight=False).print(table)
