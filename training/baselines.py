"""What a language model knows without hearing anything: the floor that acoustics must beat.

A closed vocabulary and a peaked grammar make any recogniser look good; this says how good.
"""

import heapq
from collections.abc import Sequence

from data.scoring import ScoredUtterance, total
from features.language_model import ArpaModel, State
from training.evaluate import EvalItem, EvaluationError, EvaluationResult, score_items, summarise

_MAX_WORDS = 30  # no sentence that a search should still be extending
_BEAM = 64


def likeliest_sentences(
    model: ArpaModel, *, count: int = 20, beam: int = _BEAM, max_words: int = _MAX_WORDS
) -> list[str]:
    """The non-empty sentences that the model finds likeliest, best first (beam search)."""
    hypotheses: list[tuple[float, tuple[str, ...], State]] = [(0.0, (), model.start)]
    finished: list[tuple[float, str]] = []
    vocabulary = model.vocabulary
    for _ in range(max_words):
        extended = []
        for logp, words, state in hypotheses:
            for word in vocabulary:
                step, following = model.score(state, word)
                extended.append((logp + step, (*words, word), following))
        hypotheses = heapq.nsmallest(beam, extended, key=lambda entry: (-entry[0], entry[1]))
        finished += [
            (logp + model.score_end(state), " ".join(words)) for logp, words, state in hypotheses
        ]
        finished = heapq.nsmallest(count, finished, key=lambda entry: (-entry[0], entry[1]))
        best_open = max((logp for logp, _, _ in hypotheses), default=float("-inf"))
        if len(finished) == count and best_open <= finished[-1][0]:
            break  # longer sentences can only be less likely
    return [sentence for _, sentence in finished]


def deaf_baseline(
    model: ArpaModel,
    dev: Sequence[EvalItem],
    items: Sequence[EvalItem],
    *,
    seed: int,
    count: int = 20,
) -> tuple[EvaluationResult, str]:
    """One sentence for every recording: of the likeliest, the one with the fewest errors on dev.

    Choosing on dev makes it the strongest answer that never listens. Gives result and sentence.
    """
    candidates = likeliest_sentences(model, count=count)
    if not candidates:
        raise EvaluationError("the language model knows no word", mend="train it on transcripts")

    def errors(sentence: str) -> int:
        return total(_answer(dev, sentence)).errors

    chosen = min(candidates, key=errors) if dev else candidates[0]
    result = summarise(
        _answer(items, chosen),
        engine="language model",
        mode="none",
        decoder="no acoustics",
        seed=seed,
    )
    return result, chosen


def _answer(items: Sequence[EvalItem], sentence: str) -> list[ScoredUtterance]:
    return score_items(items, [sentence] * len(items))
