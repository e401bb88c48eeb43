"""Start-up: the command line, the packaged service, the sizes of the bentos, the demo.

    python -m benchmarks.cold [--demo] [--repeats 7]

With ``--demo`` the demo runs in a fresh clone, timed, and the service that it packaged is measured;
without, the demo is said to be not measured and the service is this checkout's own.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from benchmarks._report import (
    ROOT,
    Page,
    below,
    holds,
    median_interval,
    not_measured,
    parser,
    show,
    table,
)
from benchmarks._service import folder_bytes, service
from benchmarks._workspace import Workspace
from pipelines import _paths as paths
from pipelines.run import child_environment

_DEMO = "make demo, after installation"
_HELP_S, _START_S, _DEMO_MINUTES = 0.5, 5.0, 12.0
_TRAINERS = ("torch", "pytorch-lightning", "mlflow", "feast", "dvc", "pandas", "pyarrow")


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--demo", action="store_true", help="run and time the demo: 10 to 20 min")
    given = options.parse_args(argv)
    page = Page(name="cold", title="Cold starts", arguments=argv)
    _help(page, given.repeats)
    with ExitStack() as stack:
        root = ROOT
        if given.demo:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="auricle-demo-")))
            space, commit = fresh_clone(folder)
            page.notes.append(f"the demo ran in a fresh clone of commit {commit[:12]}")
            began_s = time.monotonic()
            space.auricle("demo")
            minutes = (time.monotonic() - began_s) / 60
            page.bars.append(below(_DEMO, _DEMO_MINUTES, minutes, "min"))
            root = space.root
        else:
            page.bars.append(not_measured(_DEMO, _DEMO_MINUTES, "min"))
        _bentos(page, root, given.repeats)
    return page.write(given.out)


def fresh_clone(folder: Path) -> tuple[Workspace, str]:
    """What git has of this checkout, and nothing that was ever computed; the commit that it is."""
    space = Workspace(root=folder / "auricle")
    # a cloned history needs no objects of ours: hard links would tie the clone to this checkout
    command = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(space.root)]
    subprocess.run(command, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=space.root, check=True, capture_output=True, text=True
    )
    return space, head.stdout.strip()


def _help(page: Page, repeats: int) -> None:
    """``auricle --help`` as a new process, interpreter start included."""
    seconds: list[float] = []
    bare: list[float] = []
    for _ in range(repeats + 1):
        for command, into in (
            (["-m", "pipelines.cli", "--help"], seconds),
            (["-c", "pass"], bare),
        ):
            began_s = time.perf_counter()
            subprocess.run(
                [sys.executable, *command],
                cwd=ROOT,
                env=child_environment(),
                stdout=subprocess.DEVNULL,
                check=True,
            )
            into.append(time.perf_counter() - began_s)
    found = median_interval(seconds[1:])  # the first one warms the disk cache
    page.bars.append(below("auricle --help", _HELP_S, found, "s"))
    page.notes.append(f"an interpreter that does nothing: {show(median_interval(bare[1:]), 's')}")


def _bentos(page: Page, root: Path, repeats: int) -> None:
    """Sizes of all bentos of a workspace; cold starts of the CPU one."""
    home = root / paths.BENTO_ROOT / "home"
    built = sorted(home.glob("bentos/auricle/*/bento.yaml"), key=lambda file: file.stat().st_mtime)
    cpu, rows = None, []
    for file in built:
        document = yaml.safe_load(file.read_text())
        packages = _packages(document)
        variant = document["labels"]["variant"]
        cpu = file.parent if variant == "cpu" else cpu
        files = sum(path.is_file() for path in file.parent.rglob("*"))
        size = f"{folder_bytes(file.parent) / 1e6:.1f} MB"
        rows.append((file.parent.name, variant, size, files, ", ".join(packages)))
    if cpu is None:
        page.notes.append(
            "the service's start: not measured, no bento here (`make demo` makes one)"
        )
        return
    page.sections.append(
        ("Bentos", table(("bento", "variant", "size", "files", "packages, pinned"), rows))
    )
    carried = _carries(yaml.safe_load((cpu / "bento.yaml").read_text()))
    page.bars.append(
        holds("the bento carries no trainer", "none", ", ".join(carried) or "none", not carried)
    )
    _starts(page, home, f"auricle:{cpu.name}", repeats)


def _packages(document: dict[str, Any]) -> list[str]:
    """What the bento's image installs."""
    return str(document["image"]["python_requirements"]).split()


def _carries(document: dict[str, Any]) -> list[str]:
    names = {str(item).split("==")[0].split("[")[0] for item in _packages(document)}
    return sorted(names & set(_TRAINERS))


def _starts(page: Page, home: Path, tag: str, repeats: int) -> None:
    seconds, memory = [], []
    with tempfile.TemporaryDirectory(prefix="auricle-cold-") as folder:
        for _ in range(repeats + 1):
            with service(home, target=tag, log=Path(folder) / "log") as running:
                seconds.append(running.ready_s)
                memory.append(running.memory_mb())
    found = median_interval(seconds[1:])
    page.bars.append(below("service, from process start to /readyz", _START_S, found, "s"))
    page.notes.append(
        f"the service's very first start on this machine: {seconds[0]:.2f} s; resident memory of its "
        f"processes when ready: {show(median_interval(memory), 'MB')}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
