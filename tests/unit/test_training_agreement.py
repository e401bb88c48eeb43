"""How near two engines are: the figures that fp16's gates read."""

import numpy as np
import pytest

from governance.errors import AuricleError
from training.exporting.agreement import agreement

REFERENCE = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], np.float32))


def test_equal_engines_agree_and_padding_is_not_theirs() -> None:
    found = agreement([REFERENCE, REFERENCE[:0]], [REFERENCE.copy(), REFERENCE[:0]])
    assert (found.frames, found.max_abs_diff, found.token_agreement) == (3, 0.0, 1.0)


def test_the_largest_difference_and_the_share_of_tokens() -> None:
    other = REFERENCE.copy()
    other[2] = [-0.5, -1.5, -1.5]
    found = agreement([REFERENCE, REFERENCE], [other, REFERENCE.copy()])
    assert found.max_abs_diff == pytest.approx(float(np.abs(other - REFERENCE).max()))
    assert found.token_agreement == pytest.approx(5 / 6)


@pytest.mark.parametrize("other", [REFERENCE[:2], np.full_like(REFERENCE, np.nan)])
def test_what_cannot_be_compared_is_refused(
    other: "np.ndarray[tuple[int, int], np.dtype[np.float32]]",
) -> None:
    with pytest.raises(AuricleError):
        agreement([REFERENCE], [other])
    with pytest.raises(AuricleError, match="no frames"):
        agreement([], [])
