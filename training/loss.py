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
    log_probs_BTV: Tensor, len_B: Tensor, tokens_N: Tensor, token_len_B: Tensor, spoken_B2: Tensor
) -> Tensor:
    """Sum over the batch divided by its labels; infeasible rows count zero (see `Batch`).

    Frames outside ``spoken_B2`` must be blank. Left to itself the loss lets a network spell first
    letters in a recording's first frames, before they are spoken, and last ones in its last: with
    the whole file in view it knows them there, a stream can only guess.
    """
    silent_BT = _silent(log_probs_BTV, len_B, spoken_B2)
    certain_V = torch.full_like(log_probs_BTV[0, 0], _IMPOSSIBLE, dtype=torch.float32)
    certain_V[_BLANK] = 0.0
    spelled = functional.ctc_loss(
        torch.where(silent_BT[..., None], certain_V, log_probs_BTV.float()).transpose(0, 1),
        tokens_N,
        len_B,
        token_len_B,
        blank=_BLANK,
        reduction="sum",
        zero_infinity=True,
    )
    blank = log_probs_BTV[..., _BLANK].float().masked_fill(~silent_BT, 0.0).sum()
    return (spelled - blank) / token_len_B.sum().clamp(min=1)


def _silent(log_probs_BTV: Tensor, len_B: Tensor, spoken_B2: Tensor) -> Tensor:
    """``[B, T]``: the frames of each row in which nobody speaks."""
    frame_T = torch.arange(log_probs_BTV.shape[1], device=log_probs_BTV.device)
    outside_BT = (frame_T < spoken_B2[:, :1]) | (frame_T >= spoken_B2[:, 1:])
    return outside_BT & (frame_T < len_B[:, None])


def combine(final: Tensor, middle: Tensor | None, weight: float) -> Loss:
    """Intermediate CTC as a cheap regulariser."""
    if middle is None or weight == 0:
        return Loss(final, final.detach(), torch.zeros_like(final))
    total = (1.0 - weight) * final + weight * middle
    return Loss(total, final.detach(), middle.detach())
