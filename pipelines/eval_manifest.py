"""Operation ``eval``: WER and CER of a bundle on any corpus, with intervals, overall and by slice.

Each recording goes through the recogniser of the service: its front end, its engine, its decoder.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines._champion import resolve, version_of

if TYPE_CHECKING:
    from governance.records import Interval
    from pipelines._corpus_eval import BundleEvaluation, CorpusScore, OpenCorpus

_SHOWN_PROBLEMS = 20
_SHOWN_SLICES = 10


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle eval``; exit status 2 where a recording could not be used."""
    from rich.console import Console
    from rich.progress import Progress

    from pipelines._corpus_eval import evaluate_bundle, open_corpus

    corpus = open_corpus(Path(args.manifest), args.split)
    folder = resolve(args.model)
    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{corpus.name}: {corpus.split}", total=len(corpus.items))
        evaluation = evaluate_bundle(
            folder,
            corpus,
            mode=args.mode,
            greedy=args.greedy,
            version=version_of(args.model),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _name_problems(evaluation.found)
    (_tell_json if args.json else _tell)(corpus, evaluation)
    return 2 if evaluation.found.refused else 0


def _name_problems(found: "CorpusScore") -> None:
    for problem in found.problems[:_SHOWN_PROBLEMS]:
        sys.stderr.write(f"  {problem}\n")
    if (more := len(found.problems) - _SHOWN_PROBLEMS) > 0:
        sys.stderr.write(f"  ... and {more} more (all with --json)\n")


def _tell_json(corpus: "OpenCorpus", evaluation: "BundleEvaluation") -> None:
    found = evaluation.found
    document = {
        "corpus": corpus.name,
        "split": corpus.split,
        "model": evaluation.model.model_dump(),
        **evaluation.result.figures(),
        "audio_s": round(found.audio_s, 3),
        "cpu_s_per_audio_s": found.cpu_s / found.audio_s,
        "problems": [
            {"item": p.item, "message": p.message, "mend": p.mend, "severity": p.severity}
            for p in found.problems
        ],
    }
    sys.stdout.write(json.dumps(document) + "\n")


def _tell(corpus: "OpenCorpus", evaluation: "BundleEvaluation") -> None:
    write = sys.stdout.write
    model, found, result = evaluation.model, evaluation.found, evaluation.result
    errors = result.errors
    write(
        f"{model.name} {model.version} ({model.variant}) on {corpus.name}, split "
        f"{corpus.split}: {result.utterances} recordings, {result.speakers} speakers, "
        f"{found.audio_s / 60:.1f} minutes; {result.mode}, {result.decoder}\n"
        f"WER {_percent(result.wer)}: {errors.sub} substituted, {errors.del_} deleted, "
        f"{errors.ins} inserted of {errors.ref} words\n"
        f"CER {_percent(result.cer)}\n"
        f"{found.cpu_s / found.audio_s:.4f} CPU-seconds per second of audio\n"
    )
    for name, rows in result.slices.items():
        for row in rows[:_SHOWN_SLICES]:
            write(
                f"  {name:9} {row.value[:28]:28} {_percent(row.wer):32} "
                f"{row.utterances:5} recordings {row.words:6} words\n"
            )
        if len(rows) > _SHOWN_SLICES:
            write(f"  {name:9} ... {len(rows) - _SHOWN_SLICES} more with --json\n")


def _percent(rate: "Interval") -> str:
    return f"{rate.point:.2%} ({rate.low:.2%} to {rate.high:.2%})"
