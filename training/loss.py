"""CTC loss in float32, per label, with infeasible utterances counted instead of hidden."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.nn import functional

Tensor = Any

_BLANK = 0
_IMPOSSIBLE = -1e4  # a log-probability; an infinite one has no gradient


class Loss(NamedTuple):
    """One batch's loss."""

    total: Tensor  # what is minimised
    final: Tensor  # CTC at the last block, per label
    middle: Tensor  # intermediate CTC, per label; zero without one


def frames_needed(tokens: Sequence[int]) -> int:
    """Fewest encoder frames that can spell ``tokens``: repeats need a blank between them."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def ctc(
    log_probs_BTV: Tensor, len_B: Tensor, tokens_N: Tensor, token_len_B: Tensor, hush_B: Tensor
) -> Tensor:
    """Sum over the batch divided by its labels; infeasible rows count zero (see `Batch`).

    The ``hush_B`` first frames of a row must be blank. Left to itself the loss lets a network spell
    the first letters in a recording's first frames, before they are spoken: attention to the whole
    file knows them already, a stream guesses.
    """
    logp_BTV, hushed_BT = _hushed(log_probs_BTV.float(), hush_B)
    spelled = functional.ctc_loss(
        logp_BTV.transpose(0, 1),
        tokens_N,
        len_B,
        token_len_B,
        blank=_BLANK,
        reduction="sum",
        zero_infinity=True,
    )
    blank = log_probs_BTV[..., _BLANK].float().masked_fill(~hushed_BT, 0.0).sum()
    return (spelled - blank) / token_len_B.sum().clamp(min=1)


def _hushed(logp_BTV: Tensor, hush_B: Tensor) -> tuple[Tensor, Tensor]:
    """Certain blanks where no label may lie, which cost nothing here, and where that is."""
    hushed_BT = torch.arange(logp_BTV.shape[1], device=logp_BTV.device) < hush_B[:, None]
    certain_V = torch.full_like(logp_BTV[0, 0], _IMPOSSIBLE)
    certain_V[_BLANK] = 0.0
    return torch.where(hushed_BT[..., None], certain_V, logp_BTV), hushed_BT


def combine(final: Tensor, middle: Tensor | None, weight: float) -> Loss:
    """Intermediate CTC as a cheap regulariser."""
    if middle is None or weight == 0:
        return Loss(final, final.detach(), torch.zeros_like(final))
    total = (1.0 - weight) * final + weight * middle
    return Loss(total, final.detach(), middle.detach())
