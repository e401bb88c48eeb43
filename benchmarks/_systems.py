"""Recognisers of any make on the same recordings, with the same normaliser and scorer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks._report import show, table
from data.scoring import paired_difference
from governance.records import Interval
from pipelines._corpus_eval import OpenCorpus, evaluate_bundle, score_corpus
from training.evaluate import EvaluationResult, summarise

SEED = 1
Mode = Literal["file", "stream"]


@dataclass(frozen=True, kw_only=True)
class System:
    """A recogniser's answers to a corpus."""

    name: str
    result: EvaluationResult
    cpu_s_per_audio_s: float
    refused: int  # recordings that could not be used

    @property
    def wer(self) -> Interval:
        """Word error rate, speaker-clustered."""
        return self.result.wer


def bundle_system(name: str, folder: Path, corpus: OpenCorpus, mode: Mode, decoder: str) -> System:
    """A bundle as the service runs it; ``decoder`` is ``greedy`` or ``lm``."""
    found = evaluate_bundle(folder, corpus, mode=mode, greedy=decoder == "greedy")
    return System(
        name=f"{name}, {mode}, {decoder}",
        result=found.result,
        cpu_s_per_audio_s=found.found.cpu_s / found.found.audio_s,
        refused=len(found.found.refused),
    )


def bundle_systems(name: str, folder: Path, corpus: OpenCorpus) -> dict[str, System]:
    """Both modes under both decoders, by ``file_greedy`` and so on."""
    return {
        f"{mode}_{decoder}": bundle_system(name, folder, corpus, mode, decoder)
        for mode in ("file", "stream")
        for decoder in ("greedy", "lm")
    }


def other_system(name: str, corpus: OpenCorpus, transcribe: Callable[[bytes, str], str]) -> System:
    """Anything that turns audio into text."""
    found = score_corpus(corpus, transcribe)
    result = summarise(found.scored, engine=name, mode="file", decoder="own", seed=SEED)
    return System(
        name=name,
        result=result,
        cpu_s_per_audio_s=found.cpu_s / found.audio_s,
        refused=len(found.refused),
    )


def against(ours: System, other: System) -> str:
    """Paired difference on the same recordings, in points of WER; negative where ours is better."""
    gap = paired_difference(other.result.scored, ours.result.scored, seed=SEED)
    return show(gap, "%")


def systems_table(systems: Sequence[System]) -> str:
    """One row per system."""
    header = ("system", "WER", "95 % interval", "CER", "sub", "del", "ins", "CPU-s per audio-s")
    rows = []
    for system in systems:
        result, errors = system.result, system.result.errors
        ends = f"{result.wer.low:.2%} to {result.wer.high:.2%}"
        rows.append(
            (
                system.name,
                f"{result.wer.point:.2%}",
                ends,
                f"{result.cer.point:.2%}",
                *(errors.sub, errors.del_, errors.ins),
                f"{system.cpu_s_per_audio_s:.4f}",
            )
        )
    return table(header, rows)


def speakers_table(system: System) -> str:
    """How one system serves each speaker."""
    rows = [
        (row.value, row.utterances, row.words, show(row.wer, "%"))
        for row in system.result.slices["speaker"]
    ]
    return table(("speaker", "recordings", "words", "WER"), rows)
