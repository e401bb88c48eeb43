"""Choosing the decoder's weights. Dev selects, test is final: anything but dev is refused here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from data.scoring import total
from features.decode import DecoderConfig
from training.engines import Floats
from training.evaluate import (
    Decoding,
    EvalItem,
    EvaluationError,
    Progress,
    decode_all,
    score_items,
)

ALPHAS = (0.2, 0.4, 0.6, 0.9, 1.2)
BETAS = (0.0, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the grid."""

    alpha: float
    """Weight of the language model."""
    beta: float
    """Added per word."""
    errors: int
    """Word errors on dev."""
    wer: float
    """Word error rate on dev."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The chosen decoder and everything it was chosen from."""

    config: DecoderConfig
    """The winner."""
    trials: tuple[Trial, ...]
    """The whole grid, in the order tried."""

    def figures(self) -> dict[str, Any]:
        """For a record."""
        return {
            "alpha": self.config.alpha,
            "beta": self.config.beta,
            "trials": [asdict(trial) for trial in self.trials],
        }


def tune_decoder(
    items: Sequence[EvalItem],
    log_probs: Sequence[Floats],
    base: DecoderConfig,
    decoding: Decoding,
    *,
    alphas: Sequence[float] = ALPHAS,
    betas: Sequence[float] = BETAS,
    progress: Progress | None = None,
) -> Tuning:
    """Try every pair on dev; fewest word errors win, then the weaker language model.

    ``base`` gives what is not tuned: beam, lexicon, thresholds.
    """
    if not items:
        raise EvaluationError("there is no dev recording to tune on", mend="check the dev split")
    _require_dev(items)
    grid = list(product(alphas, betas))
    trials = []
    for number, (alpha, beta) in enumerate(grid, start=1):
        config = replace(base, kind="beam", alpha=alpha, beta=beta)
        errors = total(score_items(items, decode_all(log_probs, config, decoding)))
        trials.append(Trial(alpha=alpha, beta=beta, errors=errors.errors, wer=errors.rate))
        if progress:
            progress(number, len(grid))
    best = min(trials, key=lambda trial: (trial.errors, trial.alpha, abs(trial.beta)))
    chosen = replace(base, kind="beam", alpha=best.alpha, beta=best.beta)
    return Tuning(config=chosen, trials=tuple(trials))


def _require_dev(items: Sequence[EvalItem]) -> None:
    for item in items:
        if item.utterance.split != "dev":
            raise EvaluationError(
                f"is in split {item.utterance.split!r}; decoder weights are tuned on dev only",
                item=item.utterance.utterance_id,
                mend="tune on the dev split, so that the test figure stays honest",
            )
