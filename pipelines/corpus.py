"""Operation ``corpus``: bring recordings in as immutable shards that DVC versions; list them."""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from governance.canonical import write_atomic
from governance.errors import AuricleError, ConfigError
from pipelines import _paths as paths

if TYPE_CHECKING:
    from data.corpus import CorpusReport
    from data.sources.item import Problem, SourceOptions

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHOWN_PROBLEMS = 20


def add(args: argparse.Namespace) -> int:
    """Entry of ``auricle corpus add``: the good remainder goes in, problems are named."""
    source = Path(args.path)
    folder = source.parent if source.is_file() else source
    name = args.name or re.sub(r"[^a-z0-9_-]", "_", folder.name.lower())
    _check(name, source)
    report = _build(name, source, _options(args, folder), args)
    _version(name)
    _tell(name, report, as_json=args.json)
    return 0


def problems_file(name: str) -> Path:
    """Every problem of the last ``corpus add`` of a corpus: one JSON object a line, no content."""
    return paths.STATE / "corpora" / name / "problems.jsonl"


def _options(args: argparse.Namespace, folder: Path) -> "SourceOptions":
    from data.sources.item import UNKNOWN_LICENCE, SourceOptions

    consent = None
    if args.consent is not None:
        consent = tuple(sorted(part.strip() for part in args.consent.split(",") if part.strip()))
    return SourceOptions(
        language=args.language,
        licence=args.licence or UNKNOWN_LICENCE,
        consent=consent,
        source=folder.name,
        speaker_from_folder=args.speaker_from_folder,
    )


def _build(
    name: str, source: Path, options: "SourceOptions", args: argparse.Namespace
) -> "CorpusReport":
    from rich.progress import Progress

    from data.corpus import CorpusError, CorpusOptions, build_corpus

    with Progress(transient=True, disable=args.json or not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"reading {name}", total=None)
        try:
            report = build_corpus(
                name,
                source,
                paths.SHARDS,
                options=CorpusOptions(source=options, workers=args.workers),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        except CorpusError as error:
            _name_problems(name, error.problems)
            raise
    _name_problems(name, report.problems)
    return report


def _name_problems(name: str, problems: Sequence["Problem"]) -> None:
    """The first ones on the terminal, all of them in a file that stays on this machine."""
    path = problems_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(asdict(problem)) + "\n" for problem in problems))
    for problem in problems[:_SHOWN_PROBLEMS]:
        sys.stderr.write(f"  {problem}\n")
    if (more := len(problems) - _SHOWN_PROBLEMS) > 0:
        sys.stderr.write(f"  ... and {more} more, all in {path}\n")


def _check(name: str, source: Path) -> None:
    if not _NAME.fullmatch(name) or name == "builtin":
        raise ConfigError(
            "no usable corpus name",
            item=name,
            mend="--name with a-z, 0-9, - and _ ('builtin' is taken)",
        )
    if not source.exists():
        raise AuricleError("there is nothing there", item=str(source), mend="check the path")


def _version(name: str) -> None:
    """``dvc add``: the shards' digests go into ``data/shards/<name>.dvc``, which git versions."""
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", "add", "--quiet", str(paths.SHARDS / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise AuricleError(
            f"dvc add failed: {answer.stderr.strip()}", item=name, mend="`auricle doctor`"
        )


def _tell(name: str, report: "CorpusReport", *, as_json: bool) -> None:
    refused = len(report.refused)
    for hint in _hints(report):
        sys.stderr.write(f"  note: {hint}\n")
    if as_json:
        facts = {
            "corpus": name,
            "layout": report.layout,
            "utterances": report.total,
            "new": report.accepted,
            "seconds": report.audio_s,
            "refused": refused,
            "without_licence": report.without_licence,
            "without_speaker": report.without_speaker,
            "problems": [asdict(problem) for problem in report.problems],
            "digest": report.digest,
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    sys.stdout.write(
        f"{name} ({report.layout}): {report.total} utterances, {report.audio_s / 60:.1f} minutes; "
        f"{report.accepted} new, {refused} refused\n"
        f"next: git add data/shards/{name}.dvc; name it in params.yaml (ingest.corpora); auricle run\n"
    )


def _hints(report: "CorpusReport") -> list[str]:
    """What the pipeline will refuse later, said while the command is at hand to mend it."""
    hints = []
    if report.without_licence:
        hints.append(
            f"{report.without_licence} of {report.total} recordings name no licence; `validate` lets "
            "none of them in. Mend: the same command again with --licence (nothing is decoded twice)"
        )
    if report.without_speaker:
        hints.append(
            f"{report.without_speaker} of {report.total} recordings have neither speaker nor split, "
            "so they only train. Mend: --speaker-from-folder, or a `speaker` or `split` for each"
        )
    return hints


def list_corpora(args: argparse.Namespace) -> int:
    """Entry of ``auricle corpus list``."""
    from data.manifest import read_manifest

    rows = []
    for manifest in sorted(paths.SHARDS.glob("*/manifest.parquet")):
        utterances = read_manifest(manifest)
        rows.append(
            {
                "corpus": manifest.parent.name,
                "utterances": len(utterances),
                "minutes": round(sum(row.duration_s for row in utterances) / 60, 1),
                "speakers": len({row.speaker for row in utterances} - {""}),
                "licences": sorted({row.licence for row in utterances}),
            }
        )
    if args.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    for row in rows:
        sys.stdout.write(
            f"{row['corpus']:16} {row['utterances']:7} utterances {row['minutes']:8} minutes "
            f"{row['speakers']:5} speakers\n"
        )
    if not rows:
        sys.stdout.write(
            "no corpus yet: `auricle corpus add PATH`, or `make demo` for the built-in\n"
        )
    return 0
