"""Speaker-clustered bootstrap: how far a rate would move had other people been recorded.

Utterances of one speaker err together, so whole speakers are drawn, not utterances. All resamples
are computed at once: a resample is a row of multinomial weights over the clusters.
"""

from collections.abc import Sequence

import numpy as np

from governance.records import Interval

CONFIDENCE = 0.95
_CELLS_PER_BLOCK = 4_000_000  # resamples x clusters held in memory at a time (32 MB)


def cluster_names(speakers: Sequence[str], utterance_ids: Sequence[str]) -> list[str]:
    """The cluster of each utterance: its speaker, or itself where the speaker is unknown.

    Where everything falls into one cluster there is nobody else to draw, so the utterances are
    drawn: the interval then speaks of that one speaker only.
    """
    names = [
        f"speaker:{speaker}" if speaker else f"utterance:{utterance_id}"
        for speaker, utterance_id in zip(speakers, utterance_ids, strict=True)
    ]
    if len(set(names)) > 1:
        return names
    return [f"utterance:{utterance_id}" for utterance_id in utterance_ids]


def cluster_sums(clusters: Sequence[str], *columns: Sequence[int]) -> list[np.ndarray]:
    """Each column of counts summed within clusters (in order of the clusters' names)."""
    names, inverse = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return [
        np.bincount(inverse, weights=np.asarray(column, dtype=np.float64), minlength=len(names))
        for column in columns
    ]


def percentile_interval(
    point: float, numerators_KC: np.ndarray, denominators_KC: np.ndarray, *, resamples: int,
    seed: int,
) -> Interval:  # fmt: skip
    """Percentile interval of ``ratio[last] - ratio[first]`` (of ``ratio[0]`` when K is 1).

    K is one system or two systems measured on the same clusters: both are weighed by the same
    draws, which is what makes a difference paired.
    """
    clusters = numerators_KC.shape[1]
    generator = np.random.default_rng(seed)
    shares = np.full(clusters, 1.0 / clusters)
    block = max(1, _CELLS_PER_BLOCK // clusters)
    values: list[np.ndarray] = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        weights_RC = generator.multinomial(clusters, shares, size=rows).astype(np.float64)
        ratios_RK = (weights_RC @ numerators_KC.T) / np.maximum(weights_RC @ denominators_KC.T, 1.0)
        values.append(ratios_RK[:, -1] - (ratios_RK[:, 0] if ratios_RK.shape[1] > 1 else 0.0))
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(values), [tail, 1.0 - tail])
    return Interval(low=min(float(low), point), point=point, high=max(float(high), point))
