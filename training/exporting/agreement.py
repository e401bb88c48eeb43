"""How near one engine comes to another on real recordings, in numbers for a record."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from governance.errors import AuricleError
from training.engines import Floats


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Frame by frame over every recording."""

    frames: int
    """Frames compared."""
    max_abs_diff: float
    """Largest difference of a log-probability."""
    token_agreement: float
    """Share of frames whose best token is the same."""


def agreement(reference: Sequence[Floats], other: Sequence[Floats]) -> Agreement:
    """Compare the log-probabilities [T,V] of the same recordings, in the same order."""
    frames, equal, largest = 0, 0, 0.0
    for ours_TV, theirs_TV in zip(reference, other, strict=True):
        if ours_TV.shape != theirs_TV.shape:
            raise AuricleError(
                f"one engine gives {ours_TV.shape}, the other {theirs_TV.shape}", item="agreement"
            )
        if not np.isfinite(theirs_TV).all():
            raise AuricleError("gives numbers that are not finite", item="agreement")
        frames += len(ours_TV)
        equal += int((ours_TV.argmax(axis=1) == theirs_TV.argmax(axis=1)).sum())
        largest = max(largest, float(np.abs(ours_TV - theirs_TV).max(initial=0.0)))
    if not frames:
        raise AuricleError("no frames to compare", item="agreement", mend="check the dev split")
    return Agreement(frames=frames, max_abs_diff=largest, token_agreement=equal / frames)
