"""Growth that can be told from noise: the slope of a figure over time, with its interval."""

import math
from collections.abc import Sequence

import numpy as np

from governance.records import Interval

_Z = 1.96  # of a 95 % interval


def slope(looks: Sequence[tuple[float, float]]) -> Interval:
    """Median of all pairwise slopes (Theil and Sen), with its 95 % interval.

    The interval is Sen's (1968): ranks of the slopes, from the variance of Kendall's statistic.
    The slopes share their points, so drawing from them as if they were independent would say less
    doubt than there is.
    """
    count = len(looks)
    slopes = np.sort(
        [(b[1] - a[1]) / (b[0] - a[0]) for index, a in enumerate(looks) for b in looks[index + 1 :]]
    )
    spread = _Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2) - 1)
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return Interval(
        low=float(slopes[low]), point=float(np.median(slopes)), high=float(slopes[high])
    )


def trend(growth: Interval) -> str:
    """What an interval of growth says."""
    if growth.low > 0:
        return "grows"
    return "shrinks" if growth.high < 0 else "cannot be told from flat"
