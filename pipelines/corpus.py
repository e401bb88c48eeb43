"""Operation ``corpus``: bring recordings in as immutable shards that DVC versions; list them."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from governance.errors import AuricleError, ConfigError
from pipelines import _paths as paths

if TYPE_CHECKING:
    from data.corpus import CorpusReport

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHOWN_PROBLEMS = 20


def add(args: argparse.Namespace) -> int:
    """Entry of ``auricle corpus add``: the good remainder goes in, problems are named."""
    from rich.progress import Progress

    from data.corpus import CorpusOptions, build_corpus
    from data.sources.item import SourceOptions

    source = Path(args.path)
    name = args.name or re.sub(r"[^a-z0-9_-]", "_", source.name.lower())
    _check(name, source)
    options = SourceOptions(
        language=args.language,
        licence=args.licence or "unknown",
        consent=tuple(sorted(part.strip() for part in args.consent.split(",") if part.strip())),
        source=source.name,
    )
    with Progress(transient=True, disable=args.json or not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"reading {name}", total=None)
        report = build_corpus(
            name,
            source,
            paths.SHARDS,
            options=CorpusOptions(source=options, workers=args.workers),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for problem in report.problems[:_SHOWN_PROBLEMS]:
        sys.stderr.write(f"  {problem}\n")
    if len(report.problems) > _SHOWN_PROBLEMS:
        sys.stderr.write(
            f"  ... and {len(report.problems) - _SHOWN_PROBLEMS} more, all in "
            f"{paths.SHARDS / name / 'datasheet.json'}\n"
        )
    if not report.total:
        raise AuricleError("no usable recording", item=str(source), mend="see the problems above")
    _version(name)
    _tell(name, report, as_json=args.json)
    return 0


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
    if as_json:
        facts = {
            "corpus": name,
            "layout": report.layout,
            "utterances": report.total,
            "new": report.accepted,
            "seconds": report.audio_s,
            "refused": refused,
            "digest": report.digest,
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    sys.stdout.write(
        f"{name} ({report.layout}): {report.total} utterances, {report.audio_s / 60:.1f} minutes; "
        f"{report.accepted} new, {refused} refused\n"
        f"next: git add data/shards/{name}.dvc; name it in params.yaml (ingest.corpora); auricle run\n"
    )


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
