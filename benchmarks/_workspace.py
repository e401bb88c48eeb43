"""Workspaces for proofs: copies of this source tree in temporary folders, driven like a user's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks._report import ROOT
from governance.records import StageRecord, read_record
from pipelines import _paths as paths
from pipelines.processes import end_group
from pipelines.run import child_environment
from tests.support_workspace import Workspace as Tree
from tests.support_workspace import commit, copy_tree


class CommandFailed(RuntimeError):
    """A command of a workspace ended with an error."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A clean checkout with parameters of its own."""

    root: Path

    def auricle(self, *arguments: str) -> str:
        """Run the command line; its output passes through and is given back."""
        return self.python("-m", "pipelines.cli", *arguments)

    def python(self, *arguments: str) -> str:
        """Run this interpreter here; an error status raises, an interruption leaves nothing."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env=_environment(),
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        said = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                sys.stdout.write(f"    {line}")
                sys.stdout.flush()
                said.append(line)
            status = process.wait()
        except BaseException:
            end_group(process.pid)
            raise
        if status:
            raise CommandFailed(
                f"{' '.join(arguments)}: exit status {status}\n{''.join(said[-5:])}"
            )
        return "".join(said)

    def run(self, *stages: str) -> dict[str, Any]:
        """``auricle run``: what ran (with seconds) and what was unchanged."""
        answer = json.loads(self.auricle("run", "--json", *stages).splitlines()[-1])
        return dict(answer)

    def record(self, stage: str) -> StageRecord:
        """The record that a stage left."""
        return read_record(self.root / paths.report(stage), stage=stage)

    def path(self, path: Path) -> Path:
        """A path of the workspace, seen from here."""
        return self.root / path

    def set_params(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change keys of sections of ``params.yaml``; what is not named stays."""
        file = self.root / "params.yaml"
        document = yaml.safe_load(file.read_text())
        for section, values in changes.items():
            document[section] = {**(document.get(section) or {}), **values}
        file.write_text(yaml.safe_dump(document, sort_keys=False))


@contextmanager
def workspace(
    name: str, changes: Mapping[str, Mapping[str, Any]], *, keep: Path | None = None
) -> Iterator[Workspace]:
    """A workspace that goes when it is done with; with ``keep``, one that stays and is used again."""
    with TemporaryDirectory(prefix="auricle-proof-") as folder:
        made = Workspace(root=(keep or Path(folder)).resolve() / name)
        made.root.mkdir(parents=True, exist_ok=True)
        tree: Tree = copy_tree(made.root)
        made.set_params(changes)
        commit(tree, "parameters of the proof")
        yield made


def _environment() -> dict[str, str]:
    """Only the workspace's own packages; threads are as ``params.yaml`` says."""
    environment = child_environment()
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    return environment


def corpora_folder(given: Path | None) -> Path | None:
    """Where recordings of real speech lie: as told, or ``../shared/corpora`` beside the repository."""
    told = os.environ.get("AURICLE_CORPORA", "")
    folder = given or (Path(told) if told else ROOT.parent / "shared" / "corpora")
    return folder.resolve() if folder.is_dir() else None
