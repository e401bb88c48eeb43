"""Evaluation: engines over utterances, by mode and decoder, scored by slice with intervals.

Acoustics run once per mode; any number of decoders then read the same log-probabilities.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from data.manifest import Utterance
from data.scoring import (
    Counts,
    ScoredUtterance,
    by_slice,
    paired_difference,
    rate_interval,
    score,
    total,
)
from features.decode import DecoderConfig, decode
from features.language_model import ArpaModel
from features.lexicon import Lexicon
from features.tokens import TokenTable
from governance.errors import AuricleError
from governance.records import Interval, SliceScore
from training.engines import Engine, Floats, Mode, length_batches

Progress = Callable[[int, int], None]
"""Called with utterances done and utterances in all."""

_BANDS = {"SNR": ((10.0, 20.0, 30.0), "dB"), "duration": ((2.0, 5.0, 10.0), "s")}


class EvaluationError(AuricleError):
    """An evaluation that cannot be carried out as asked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalItem:
    """One recording, ready for an engine."""

    utterance: Utterance
    """Reference, speaker, profile."""
    features_TF: Floats
    """Normalised log-mel."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What decoders need besides log-probabilities."""

    table: TokenTable
    """The output axis."""
    language_model: ArpaModel | None = None
    """Needed where a decoder's alpha is above 0."""
    lexicon: Lexicon | None = None
    """Needed where a decoder is held to a closed vocabulary."""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """One engine, mode and decoder over one set of recordings."""

    engine: str
    """Engine.name."""
    mode: str
    """ "full", "masked" or "stream"; "none" for a baseline without audio."""
    decoder: str
    """The decoder's name in the report."""
    scored: tuple[ScoredUtterance, ...]
    """Every utterance: holds transcripts, so it is personal content and stays out of records."""
    wer: Interval
    """Word error rate, speaker-clustered interval."""
    cer: Interval
    """Character error rate, speaker-clustered interval."""
    slices: Mapping[str, tuple[SliceScore, ...]]
    """Dimension -> its slices."""

    @property
    def errors(self) -> Counts:
        """Word errors by kind."""
        return total(self.scored)

    @property
    def deletions_share(self) -> float:
        """Deletions among all word errors: a model that goes quiet shows here first."""
        errors = self.errors
        return errors.del_ / errors.errors if errors.errors else 0.0

    @property
    def words(self) -> int:
        """Reference words."""
        return self.errors.ref

    @property
    def utterances(self) -> int:
        """Recordings."""
        return len(self.scored)

    @property
    def speakers(self) -> int:
        """Distinct known speakers."""
        return len({item.speaker for item in self.scored} - {""})

    def figures(self) -> dict[str, Any]:
        """Numbers for a record: no transcripts."""
        return {
            "engine": self.engine,
            "mode": self.mode,
            "decoder": self.decoder,
            "wer": asdict(self.wer),
            "cer": asdict(self.cer),
            "words": asdict(self.errors),
            "deletions_share": self.deletions_share,
            "utterances": self.utterances,
            "speakers": self.speakers,
            "slices": {name: [asdict(row) for row in rows] for name, rows in self.slices.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Another variant against a reference on the same recordings."""

    net_words_worse: int
    """Word errors more than the reference's; negative where it is better."""
    deletions_worse: int
    """Deletions more than the reference's."""
    wer_difference: Interval
    """Paired difference, positive where the variant is worse."""


def acoustic_pass(
    engine: Engine,
    items: Sequence[EvalItem],
    mode: Mode,
    *,
    max_frames: int = 12_000,
    max_rows: int = 16,
    progress: Progress | None = None,
) -> list[Floats]:
    """Log-probabilities of every item, batched by length, in the items' order."""
    if mode not in engine.modes:
        raise EvaluationError(
            f"has no mode {mode!r}", item=engine.name, mend=f"ask for {', '.join(engine.modes)}"
        )
    found: dict[int, Floats] = {}
    lengths = [len(item.features_TF) for item in items]
    for batch in length_batches(lengths, max_frames=max_frames, max_rows=max_rows):
        outputs = engine.log_probs([items[index].features_TF for index in batch], mode)
        found.update(zip(batch, outputs, strict=True))
        if progress:
            progress(len(found), len(items))
    return [found[index] for index in range(len(items))]


def decode_all(log_probs: Sequence[Floats], config: DecoderConfig, decoding: Decoding) -> list[str]:
    """One text per utterance."""
    return [
        decode(logp_TV, config, decoding.table, decoding.language_model, decoding.lexicon).text
        for logp_TV in log_probs
    ]


def score_items(items: Sequence[EvalItem], hypotheses: Sequence[str]) -> list[ScoredUtterance]:
    """Texts of any system, in the items' order, against the references."""
    return [
        score(
            item.utterance.utterance_id,
            item.utterance.speaker,
            item.utterance.normalised_text,
            text,
            slices=slices_of(item.utterance),
        )
        for item, text in zip(items, hypotheses, strict=True)
    ]


def summarise(
    scored: Sequence[ScoredUtterance],
    *,
    engine: str,
    mode: str,
    decoder: str,
    seed: int,
    resamples: int = 1000,
) -> EvaluationResult:
    """Rates, intervals and slices of scored utterances."""
    if not scored:
        raise EvaluationError(
            "no recordings to evaluate", item=engine, mend="check the split and the manifest"
        )
    slices: dict[str, list[SliceScore]] = {name: [] for name in scored[0].slices}
    for row in by_slice(scored, resamples=resamples, seed=seed):
        slices.setdefault(row.name, []).append(row)
    for name, edges in _BANDS.items():
        order = _band_names(*edges)
        slices.get(name, []).sort(
            key=lambda row: order.index(row.value) if row.value in order else 0
        )
    return EvaluationResult(
        engine=engine,
        mode=mode,
        decoder=decoder,
        scored=tuple(scored),
        wer=rate_interval(scored, unit="words", resamples=resamples, seed=seed),
        cer=rate_interval(scored, unit="chars", resamples=resamples, seed=seed),
        slices={name: tuple(rows) for name, rows in slices.items()},
    )


def evaluate(
    engine: Engine,
    items: Sequence[EvalItem],
    *,
    modes: Sequence[Mode],
    decoders: Mapping[str, DecoderConfig],
    decoding: Decoding,
    seed: int,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> list[EvaluationResult]:
    """Every mode under every decoder."""
    results = []
    for mode in modes:
        log_probs = acoustic_pass(engine, items, mode, progress=progress)
        for name, config in decoders.items():
            scored = score_items(items, decode_all(log_probs, config, decoding))
            results.append(
                summarise(
                    scored,
                    engine=engine.name,
                    mode=mode,
                    decoder=name,
                    seed=seed,
                    resamples=resamples,
                )
            )
    return results


def compare(
    reference: Sequence[ScoredUtterance], variant: Sequence[ScoredUtterance], *, seed: int
) -> Comparison:
    """How much worse ``variant`` is, on the same recordings."""
    before, after = total(reference), total(variant)
    return Comparison(
        net_words_worse=after.errors - before.errors,
        deletions_worse=after.del_ - before.del_,
        wer_difference=paired_difference(reference, variant, seed=seed),
    )


def worst_utterances(scored: Sequence[ScoredUtterance], *, limit: int) -> list[ScoredUtterance]:
    """Most wrong words first; perfect ones never."""
    wrong = [item for item in scored if item.words.errors]
    wrong.sort(key=lambda item: (-item.words.errors, -item.words.rate, item.utterance_id))
    return wrong[: max(0, limit)]


def slices_of(utterance: Utterance) -> dict[str, str]:
    """Where an utterance is counted: corpus, SNR band, duration band, speaker."""
    return {
        "corpus": utterance.corpus,
        "SNR": _band(utterance.snr_db, *_BANDS["SNR"]),
        "duration": _band(utterance.duration_s, *_BANDS["duration"]),
        "speaker": utterance.speaker or "unknown",
    }


def _band(value: float, edges: Sequence[float], unit: str) -> str:
    """The name of the band that ``value`` is in; an edge belongs to the band above it."""
    return _band_names(edges, unit)[sum(value >= edge for edge in edges)]


def _band_names(edges: Sequence[float], unit: str) -> list[str]:
    """ "under 10 dB", "10 to 20 dB", "30 dB and more"."""
    between = [f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)]
    return [f"under {edges[0]:g} {unit}", *between, f"{edges[-1]:g} {unit} and more"]
