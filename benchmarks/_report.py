"""The dated page that every proof writes: machine, commit, command, bars with what was measured."""

import argparse
import datetime
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from governance.environment import describe
from governance.records import Interval

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MET, MISSED, NOT_RUN = 0, 1, 77
NOT_MEASURED = "not measured"
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A promise and what was measured; ``met`` is None where a figure is only reported."""

    what: str
    wanted: str
    measured: str
    met: bool | None

    @property
    def word(self) -> str:
        """How the promise stands."""
        if self.met is None:
            return "" if self.measured == NOT_MEASURED else "reported"
        return "met" if self.met else "**MISSED**"


def below(what: str, bound: float, value: float | Interval, unit: str) -> Bar:
    """A figure that must not be above ``bound``; unit ``%`` takes a share."""
    point = value.point if isinstance(value, Interval) else value
    limit = f"at most {show(bound, unit)}"
    return Bar(what=what, wanted=limit, measured=show(value, unit), met=point <= bound)


def above(what: str, bound: float, value: float | Interval, unit: str) -> Bar:
    """A figure that must not be below ``bound``."""
    point = value.point if isinstance(value, Interval) else value
    limit = f"at least {show(bound, unit)}"
    return Bar(what=what, wanted=limit, measured=show(value, unit), met=point >= bound)


def holds(what: str, wanted: str, measured: str, met: bool) -> Bar:
    """A promise that is kept or not."""
    return Bar(what=what, wanted=wanted, measured=measured, met=met)


def not_measured(what: str, bound: float, unit: str) -> Bar:
    """A promise that this run did not look at: it is neither kept nor broken."""
    return Bar(what=what, wanted=f"at most {show(bound, unit)}", measured=NOT_MEASURED, met=None)


def show(value: float | Interval, unit: str) -> str:
    """A figure for reading, with its interval if it has one."""
    if isinstance(value, Interval):
        ends = f"{_number(value.low, unit)} to {_number(value.high, unit)}"
        return f"{show(value.point, unit)} ({ends})"
    gap = "" if unit in ("%", "x", "") else " "
    return f"{_number(value, unit)}{gap}{unit}"


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.4g}"


def median_interval(values: Sequence[float]) -> Interval:
    """Median with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, (_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    middle = float(np.median(values))
    return Interval(low=min(float(low), middle), point=middle, high=max(float(high), middle))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |"
        for row in (header, rule, *rows)
    )


@dataclass(kw_only=True)
class Page:
    """A proof's page while it is being written."""

    name: str
    title: str
    arguments: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)  # one line each, above the bars
    bars: list[Bar] = field(default_factory=list)
    sections: list[tuple[str, str]] = field(default_factory=list)  # heading, Markdown

    @property
    def status(self) -> int:
        """Exit status: a missed bar shows."""
        return MISSED if any(bar.met is False for bar in self.bars) else MET

    def text(self) -> str:
        """The page as Markdown."""
        machine = describe(ROOT)
        dirty = " with changes" if machine["git_dirty"] == "true" else ""
        command = shlex.join(["python", "-m", f"benchmarks.{self.name}", *_told(self.arguments)])
        lines = [
            f"# {self.title}, {datetime.date.today().isoformat()}",
            "",
            f"- machine: {machine['cpu']}, {machine['cores']} cores ({machine['cpu_flags']}), "
            f"load {os.getloadavg()[0]:.1f} at the end; Python {machine['python']}",
            f"- commit: {machine['git_commit'][:12]}{dirty}",
            f"- command: `{command}`",
            *(f"- {note}" for note in self.notes),
            "",
        ]
        if self.bars:
            rows = [(bar.what, bar.wanted, bar.measured, bar.word) for bar in self.bars]
            lines += [table(("bar", "wanted", "measured", ""), rows), ""]
        for heading, body in self.sections:
            lines += [f"## {heading}", "", body, ""]
        return "\n".join(lines)

    def write(self, folder: Path) -> int:
        """Print the page, keep it as ``<name>-<date>.md``, give the exit status."""
        print(self.text())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}-{datetime.date.today().isoformat()}.md"
        path.write_text(self.text(), encoding="utf-8")
        print(f"written to {path}")
        return self.status


def _told(arguments: Sequence[str]) -> list[str]:
    """The arguments that matter to a reader: where things lie is this machine's affair."""
    told = list(arguments)
    for option in ("--out", "--keep", "--corpora"):
        if option in told:
            at = told.index(option)
            del told[at : at + 2]
    return told


def not_run(name: str, reason: str) -> int:
    """Say why a proof was not run; an older page of it stays as it is."""
    print(f"{name}: not run: {reason}")
    return NOT_RUN


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every proof has."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the page")
    made.add_argument("--short", action="store_true", help="minutes at most")
    return made
