"""CTC loss in float32, per label, with infeasible utterances counted instead of hidden."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.nn import functional

Tensor = Any


class Loss(NamedTuple):
    """One batch's loss."""

    total: Tensor  # what is minimised
    final: Tensor  # CTC at the last block, per label
    middle: Tensor  # intermediate CTC, per label; zero without one


def frames_needed(tokens: Sequence[int]) -> int:
    """Fewest encoder frames that can spell ``tokens``: repeats need a blank between them."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def ctc(log_probs_BTV: Tensor, len_B: Tensor, tokens_N: Tensor, token_len_B: Tensor) -> Tensor:
    """Sum over the batch divided by its labels; infeasible rows count zero (see `Batch`)."""
    summed = functional.ctc_loss(
        log_probs_BTV.float().transpose(0, 1),
        tokens_N,
        len_B,
        token_len_B,
        blank=0,
        reduction="sum",
        zero_infinity=True,
    )
    return summed / token_len_B.sum().clamp(min=1)


def combine(final: Tensor, middle: Tensor | None, weight: float) -> Loss:
    """Intermediate CTC as a cheap regulariser."""
    if middle is None or weight == 0:
        return Loss(final, final.detach(), torch.zeros_like(final))
    total = (1.0 - weight) * final + weight * middle
    return Loss(total, final.detach(), middle.detach())
