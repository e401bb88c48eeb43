"""The only code that stages share: open a stage, time it, write its record, speak errors plainly."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from governance.canonical import file_digest, tree_digest
from governance.environment import describe
from governance.errors import AuricleError
from governance.records import StageRecord, write_record
from pipelines._paths import report

EXIT_USER_ERROR = 2
SEED = 1
"""Of every draw that no parameter seeds (intervals, probes): a stage run twice says the same."""


@dataclass
class StageRun:
    """What a stage fills in while it runs: figures and parameters; digests are taken at the end."""

    name: str
    inputs: dict[str, Path]
    outputs: dict[str, Path]
    parameters: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


def run_stage(
    name: str,
    body: Callable[[StageRun], None],
    *,
    inputs: dict[str, Path],
    outputs: dict[str, Path],
) -> None:
    """Run one stage and write its record; a user's error ends with one line and exit status 2."""
    run = StageRun(name=name, inputs=inputs, outputs=outputs)
    started_at, begin_s = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    try:
        require(inputs)
        body(run)
    except AuricleError as error:
        sys.stderr.write(f"auricle {name}: {error}\n")
        raise SystemExit(EXIT_USER_ERROR) from None
    record = StageRecord(
        stage=name,
        schema_version=1,
        inputs={key: path_digest(path) for key, path in inputs.items()},
        params=run.parameters,
        figures=run.figures,
        outputs={key: path_digest(path) for key, path in outputs.items()},
        environment=describe(),
        started_at=started_at,
        wall_s=round(time.perf_counter() - begin_s, 3),
    )
    write_record(report(name), record)


def require(inputs: dict[str, Path]) -> None:
    """Refuse to start without the inputs, naming the stage that makes them."""
    for name, path in inputs.items():
        if not path.exists():
            raise AuricleError(
                f"the input '{name}' is not there", item=str(path), mend="run `auricle run` first"
            )


def path_digest(path: Path) -> str:
    """Digest of a file or of a whole folder."""
    return tree_digest(path) if path.is_dir() else file_digest(path)


def say(line: str) -> None:
    """One line of progress, shown at once: what a step that takes a while is about to do."""
    sys.stdout.write(f"  {line}\n")
    sys.stdout.flush()


def progress_line(label: str) -> Callable[[int, int], None]:
    """A ``progress(done, total)`` callback that prints a line at most every two seconds."""
    last_s = 0.0

    def show(done: int, total: int) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= 2 or done == total:
            last_s = now_s
            say(f"{label}: {done}/{total}")

    return show
