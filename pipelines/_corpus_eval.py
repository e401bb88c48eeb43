"""Any corpus in any layout through any recogniser: what ``auricle eval`` and the benchmarks share."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data.audio import MAX_DURATION_S
from data.prepare import Job, Prepared, prepare
from data.scoring import ScoredUtterance, score
from data.sources.detect import scan
from data.sources.item import SPLITS, Problem, Scan, SourceItem, SourceOptions
from data.sources.manifest_jsonl import FILE as MANIFEST
from governance.errors import AuricleError
from pipelines._recognise import open_recognizer, stream_text_of, text_of
from pipelines._stage import SEED
from serving.schema import ModelFacts
from training.evaluate import EvaluationResult, slices_of, summarise

Transcribe = Callable[[bytes, str], str]
"""The bytes of a recording and the name that messages call them, to text."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class OpenCorpus:
    """A corpus folder, looked through; nothing is decoded yet."""

    name: str
    """Name of the folder, with the manifest's where several lie in it."""
    split: str
    """What was asked for, or ``all`` where the corpus has no splits."""
    items: tuple[SourceItem, ...]
    """The recordings of the split whose speakers agreed to evaluation."""
    problems: tuple[Problem, ...]
    """Rows that cannot be used."""

    def recordings(self, problems: list[Problem]) -> Iterator[Prepared]:
        """Decode one by one; what cannot be used goes to ``problems``."""
        for item in self.items:
            job = Job(
                item=item, corpus=self.name, max_duration_s=MAX_DURATION_S, fingerprinted=False
            )
            found = prepare(job)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                yield found


@dataclass(kw_only=True)
class CorpusScore:
    """Every recording of a corpus, scored."""

    scored: list[ScoredUtterance] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    audio_s: float = 0.0
    cpu_s: float = 0.0
    """CPU-seconds of the recogniser: from the file's bytes to the text."""

    @property
    def refused(self) -> list[Problem]:
        """The problems that cost a recording and want mending."""
        return [problem for problem in self.problems if problem.severity == "refused"]


def open_corpus(path: Path, split: str) -> OpenCorpus:
    """Look through a corpus folder, or what one manifest of it lists; ``all`` takes every split.

    Whoever evaluates recordings that state no consent answers for that themselves.
    """
    if split not in (*SPLITS, "all"):
        raise AuricleError(
            f"there is no split {split!r}", item="--split", mend="train, dev, test or all"
        )
    found = scan(path, options=SourceOptions(consent=("eval",)))
    if split != "all" and not any(item.split for item in found.items):
        split = "all"  # a folder of recordings: everything in it is there to be evaluated
    items = [item for item in found.items if split in ("all", item.split)]
    if found.items and not items:
        present = sorted({item.split for item in found.items if item.split})
        raise AuricleError(
            f"has no recording in split {split!r}",
            item=_name(found),
            mend=" or ".join(f"--split {name}" for name in (*present, "all")),
        )
    problems = list(found.problems)
    for item in items:
        if "eval" not in item.consent:
            problems.append(
                Problem(
                    item=item.origin,
                    message="its consent does not cover evaluation",
                    mend="add eval to its consent if its speaker agreed",
                )
            )
    return OpenCorpus(
        name=_name(found),
        split=split,
        items=tuple(item for item in items if "eval" in item.consent),
        problems=tuple(problems),
    )


def _name(found: Scan) -> str:
    """The folder's name, and the manifest's where it is not the one that the folder goes by."""
    folder, listing = found.root.resolve().name, found.listing
    if listing is None or listing.name == MANIFEST:
        return folder
    return f"{folder}/{listing.name}"


def score_corpus(
    corpus: OpenCorpus,
    transcribe: Transcribe,
    *,
    progress: Progress = lambda done, total: None,
) -> CorpusScore:
    """Transcribe and score; a recording that fails is named and the good remainder goes on."""
    result = CorpusScore(problems=list(corpus.problems))
    for recording in corpus.recordings(result.problems):
        row = recording.utterance
        began = time.process_time()
        try:
            text = transcribe(recording.stored, row.utterance_id)
        except AuricleError as error:
            result.problems.append(
                Problem(item=row.utterance_id, message=error.message, mend=error.mend or "")
            )
            continue
        result.cpu_s += time.process_time() - began
        result.audio_s += row.duration_s
        result.scored.append(
            score(row.utterance_id, row.speaker, row.normalised_text, text, slices=slices_of(row))
        )
        progress(len(result.scored), len(corpus.items))
    if not result.scored:
        first = result.problems[0] if result.problems else None
        raise AuricleError(
            f"no usable recording in split {corpus.split!r}"
            + (f"; the first problem: {first.item}: {first.message}" if first else ""),
            item=corpus.name,
            mend=(first.mend if first else "") or "name recordings that have transcripts",
        )
    return result


@dataclass(frozen=True, kw_only=True)
class BundleEvaluation:
    """A bundle on a corpus."""

    model: ModelFacts
    """Which bundle."""
    found: CorpusScore
    """Every recording, and what was wrong."""
    result: EvaluationResult
    """Rates, intervals, slices."""


def evaluate_bundle(
    folder: Path,
    corpus: OpenCorpus,
    *,
    mode: Literal["file", "stream"],
    greedy: bool,
    version: str = "",
    progress: Progress = lambda done, total: None,
) -> BundleEvaluation:
    """A corpus through a bundle as the service runs it."""
    recognizer = open_recognizer(folder, greedy=greedy, version=version)
    read = stream_text_of if mode == "stream" else text_of
    found = score_corpus(
        corpus, lambda audio, name: read(recognizer, audio, name=name), progress=progress
    )
    return BundleEvaluation(
        model=recognizer.facts,
        found=found,
        result=summarise(
            found.scored,
            engine=f"onnx {recognizer.facts.variant}",
            mode=mode,
            decoder="greedy" if greedy else recognizer.config.decoder.kind,
            seed=SEED,
        ),
    )
