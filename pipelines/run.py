"""Operation ``run``: ``dvc repro`` with progress and a summary of what ran and what was unchanged."""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from governance.errors import AuricleError
from pipelines.code import STAGES
from pipelines.processes import end_group

_RUNNING = re.compile(r"Running stage '([^']+)'")
_SKIPPED = re.compile(r"Stage '([^']+)' (?:didn't change|is cached)")
_EXITED = re.compile(r"ERROR: .* exited with (\d+)$")
_DEFECT, _MENDABLE = 1, 2  # a stage's own exit status 2 is its user's to mend (pipelines/_stage.py)


@dataclass
class Outcome:
    """What became of each stage, in order, with seconds for those that ran."""

    ran: dict[str, float] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    failed: str = ""
    status: int = 0  # exit status of the whole


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle run``."""
    named = [*args.stages, *([args.again] if args.again else [])]
    unknown = [stage for stage in named if stage not in STAGES]
    if unknown:
        raise AuricleError(
            "no such stage", item=", ".join(unknown), mend=f"one of {', '.join(STAGES)}"
        )
    if args.again:
        first = reproduce(["--force", "--single-item", args.again], quiet=args.json)
        if first.failed:
            return first.status
    outcome = reproduce(args.stages, quiet=args.json)
    if args.json:
        sys.stdout.write(json.dumps(outcome.__dict__) + "\n")
    else:
        summarise(outcome)
    return outcome.status


def reproduce(stages: list[str] | None = None, *, quiet: bool = False) -> Outcome:
    """Run ``dvc repro`` in its own process group, so that Ctrl-C leaves nothing behind.

    ``params.yaml`` is checked as a whole before: no late section stops what took minutes to get there.
    """
    from pipelines._sections import require_sound_params

    for name in ("dvc.yaml", ".dvc"):
        if not Path(name).exists():
            raise AuricleError(
                "there is no pipeline in this folder",
                item=name,
                mend="call it in a clone of Auricle",
            )
    require_sound_params()
    command = _dvc("repro", *(stages or []))
    process = subprocess.Popen(
        command,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        start_new_session=True,
    )
    outcome, follower = Outcome(), _Follower(quiet)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            follower.take(line.rstrip("\n"), outcome)
        status = process.wait()
    except BaseException:
        end_group(process.pid)
        raise
    if status != 0:
        outcome.failed = follower.current or "dvc"
        outcome.status = _MENDABLE if follower.exited == _MENDABLE else _DEFECT
        if not follower.current or quiet:
            sys.stderr.write("\n".join(follower.tail) + "\n")
    follower.close(outcome)
    return outcome


def stale_stages() -> list[str]:
    """Stages that ``dvc repro`` would run again for what lies there now, in their order.

    What only follows from them is not among them: whether it does is known when they have run. The
    stage ``code``, which always runs, is left out; before it ran a changed statement is not seen.
    """
    answer = subprocess.run(
        _dvc("status", "--json"),
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise AuricleError(
            f"dvc status failed: {answer.stderr.strip()}", item="dvc.yaml", mend="`auricle doctor`"
        )
    changed = json.loads(answer.stdout)
    return [stage for stage in STAGES if stage in changed and stage != "code"]


def _dvc(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def child_environment() -> dict[str, str]:
    """This interpreter first on PATH (stages run as ``python -m``), telemetry off, one BLAS thread."""
    from governance.telemetry import disable_vendor_telemetry

    environment = dict(os.environ)
    folder = os.path.dirname(sys.executable)  # noqa: PTH120 - not resolved: a venv's link counts
    environment["PATH"] = folder + os.pathsep + environment.get("PATH", "")
    environment["PYTHONUNBUFFERED"] = "1"
    # A thread waits some microseconds for the next product, then sleeps: always asleep costs
    # training a tenth, always spinning stalls busy cores.
    environment.setdefault("GOMP_SPINCOUNT", "20000")
    environment.setdefault(
        "OPENBLAS_NUM_THREADS", "1"
    )  # NumPy's threads beside torch's cost a sixth
    disable_vendor_telemetry(environment)
    return environment


class _Follower:
    """Turns DVC's lines into one headline per stage, and passes the stages' own lines through."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.current = ""
        self.tail: list[str] = []
        self.exited = 0  # exit status of the stage that failed
        self._begin_s = 0.0
        self._crashed = False

    def take(self, line: str, outcome: Outcome) -> None:
        self.tail = [*self.tail[-14:], line]
        if started := _RUNNING.search(line):
            self.close(outcome)
            self.current, self._begin_s = started[1], time.monotonic()
            self._headline(self.current)
        elif skipped := _SKIPPED.search(line):
            outcome.unchanged.append(skipped[1])
        elif self.current and not self.quiet and self._is_for_people(line):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        if exited := _EXITED.search(line):
            self.exited = int(exited[1])

    def _is_for_people(self, line: str) -> bool:
        """The stages' own lines, and from a traceback on everything."""
        self._crashed = self._crashed or line.startswith("Traceback")
        return self._crashed or line.startswith(("  ", "auricle ", "ERROR"))

    def close(self, outcome: Outcome) -> None:
        if self.current:
            outcome.ran[self.current] = round(time.monotonic() - self._begin_s, 1)
        self.current = ""

    def _headline(self, stage: str) -> None:
        if not self.quiet and stage in STAGES:
            sys.stdout.write(f"[{STAGES.index(stage) + 1:2}/{len(STAGES)}] {stage}\n")
            sys.stdout.flush()


def summarise(outcome: Outcome) -> None:
    """Seconds per stage that ran; the others by name."""
    worked = {stage: seconds for stage, seconds in outcome.ran.items() if stage != "code"}
    for stage, seconds in worked.items():
        mark = "failed" if stage == outcome.failed else "ran"
        sys.stdout.write(f"  {stage:10} {mark:6} {seconds:7.1f} s\n")
    if outcome.unchanged:
        sys.stdout.write(f"  unchanged: {', '.join(outcome.unchanged)}\n")
    if not worked and not outcome.failed:
        sys.stdout.write("Nothing to do: every stage is up to date.\n")
