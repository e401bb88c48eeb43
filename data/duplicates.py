"""The same recording twice, whatever its gain, format or rate; never the same sentence twice.

Duplicates across splits turn a test into a memory test, so they are named. A fingerprint says for
each 20 ms step and band pair whether energy tilts up or down against the step before. Gain cancels
out, codecs and telephone bandwidth flip few of the signs, and a second utterance of the same words
by the same person agrees hardly more than chance.

Cost: with N recordings of which W have nearly the length of any one, N * W dot products of 144
numbers in blocks of matrix products (N = 100,000 and W = 10,000: 1.4e11 multiply-adds), then an
exact comparison of the few pairs that pass. Memory: 600 bytes, and 250 bytes a second, for each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.units import SAMPLE_RATE_HZ

_WINDOW, _HOP = 1024, 320
_LAG_FRAMES = 2
_LOW_HZ, _HIGH_HZ = 300.0, 3_400.0  # what telephone bandwidth leaves
_BANDS = 33
_ACTIVE_BELOW_LOUD_DB = 30.0
_SILENCE_LOG_POWER = -46.0  # 1e-20
_SKETCH_TIMES, _SKETCH_BANDS = 12, 12
_SKETCH_COSINE = 0.85
_LENGTH_TOLERANCE_FRAMES = 8
_MAX_SHIFT = 6
_MIN_ACTIVE_FRAMES = 8
# The share of signs that may differ, less a margin for how few signs a short recording has: two
# takes of one digit by one person come down to 0.194, re-encoded speech stays below 0.20.
_MAX_DISTANCE, _SHORT_MARGIN = 0.26, 2.0
_SKETCH_BLOCK = 2_048
_PAIR_BLOCK = 4_096
_BLOCK_FRAMES = 4_096


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What stays of a recording when gain, codec and rate are taken away."""

    words_T: NDArray[np.uint32]
    """One word of 32 signs for each 20 ms."""
    active_T: NDArray[np.bool_]
    """Frames within 30 dB of the loudest; the signs of the others are noise."""
    sketch_D: NDArray[np.float32]
    """Coarse spectrogram of unit length, to find candidates with."""


@dataclass(frozen=True, kw_only=True)
class DuplicatePair:
    """Two recordings that are one."""

    first: str
    """Utterance id; the smaller of the two."""
    second: str
    """Utterance id."""
    distance: float
    """Share of signs that differ, 0 for equal samples; half of them differ by chance."""


def fingerprint(samples_T: NDArray[np.float32]) -> Fingerprint:
    """The fingerprint of mono samples at 16 kHz."""
    levels_TB = _band_levels(samples_T)
    tilt_TB = levels_TB[:, 1:] - levels_TB[:, :-1]
    before_TB = np.vstack([np.repeat(tilt_TB[:1], _LAG_FRAMES, axis=0), tilt_TB[:-_LAG_FRAMES]])
    bits_TB = tilt_TB > before_TB[: len(tilt_TB)]
    words_T = np.packbits(bits_TB, axis=1).view(">u4")[:, 0].astype(np.uint32)
    loudness_T = np.logaddexp.reduce(levels_TB, axis=1)
    # Digital silence is active nowhere: it resembles all other silence.
    audible = float(levels_TB.max()) > _SILENCE_LOG_POWER
    active_T = audible & (loudness_T > loudness_T.max() - _ACTIVE_BELOW_LOUD_DB * np.log(10) / 10)
    return Fingerprint(words_T=words_T, active_T=active_T, sketch_D=_sketch(levels_TB))


def near_duplicates(prints: Mapping[str, Fingerprint]) -> list[DuplicatePair]:
    """Every pair whose signs differ little at the best shift of up to 120 ms."""
    ids = sorted(prints, key=lambda name: (len(prints[name].words_T), name))
    ordered = [prints[name] for name in ids]
    pairs = []
    for left_P, right_P in _candidates(ordered):
        for start in range(0, len(left_P), _PAIR_BLOCK):
            rows = slice(start, start + _PAIR_BLOCK)
            distance_P, allowed_P = _distances(ordered, left_P[rows], right_P[rows])
            for index in np.flatnonzero(distance_P <= allowed_P):
                names = sorted((ids[left_P[rows][index]], ids[right_P[rows][index]]))
                pairs.append(
                    DuplicatePair(
                        first=names[0], second=names[1], distance=float(distance_P[index])
                    )
                )
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def originals(
    pairs: Iterable[DuplicatePair], *, rank: Callable[[str], Any] = lambda name: 0
) -> dict[str, str]:
    """For each repeated id the one that it repeats: the one of least ``rank``, then the least.

    Repetition is passed on: if b repeats a and c repeats b, all point to one.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for pair in pairs:
        one, other = root(pair.first), root(pair.second)
        least, greatest = sorted((one, other), key=lambda name: (rank(name), name))
        parent[greatest] = least
    return {name: root(name) for name in sorted(parent) if root(name) != name}


def _band_levels(samples_T: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log energy in 33 bands, shape [frames, bands]; 60 dB under the loudest is the floor."""
    if len(samples_T) < _WINDOW:
        samples_T = np.pad(samples_T, (0, _WINDOW - len(samples_T)))
    frames_NT = np.lib.stride_tricks.sliding_window_view(samples_T, _WINDOW)[::_HOP]
    window_T = np.hanning(_WINDOW).astype(np.float32)
    edges_hz = np.geomspace(_LOW_HZ, _HIGH_HZ, _BANDS + 1)
    edges = np.rint(edges_hz * _WINDOW / SAMPLE_RATE_HZ).astype(int)
    blocks = []
    for start in range(0, len(frames_NT), _BLOCK_FRAMES):
        spectra_NF = np.fft.rfft(frames_NT[start : start + _BLOCK_FRAMES] * window_T, axis=1)
        power_NF = spectra_NF.real**2 + spectra_NF.imag**2
        blocks.append(np.add.reduceat(power_NF[:, : edges[-1]], edges[:-1], axis=1))
    power_TB = np.concatenate(blocks)
    loudest = float(power_TB.max())
    return np.log(np.maximum(power_TB, max(loudest * 1e-6, 1e-30))).astype(np.float32)


def _sketch(levels_TB: NDArray[np.float32]) -> NDArray[np.float32]:
    floor = levels_TB.max() - _ACTIVE_BELOW_LOUD_DB * np.log(10) / 10
    clipped_TB = np.maximum(levels_TB, floor)
    bands = np.linspace(0, _BANDS, _SKETCH_BANDS, endpoint=False).astype(int)
    coarse_TB = np.add.reduceat(clipped_TB, bands, axis=1) / np.diff(bands, append=_BANDS)
    # Means over equal parts of the time axis, read off the running sum, so that any length does.
    running = np.vstack(
        [np.zeros((1, _SKETCH_BANDS)), np.cumsum(coarse_TB, axis=0, dtype=np.float64)]
    )
    marks = np.linspace(0, len(coarse_TB), _SKETCH_TIMES + 1)
    whole = np.floor(marks).astype(int)
    rest = (marks - whole)[:, None] * np.vstack([coarse_TB, coarse_TB[-1:]])[whole]
    cells = np.diff(running[whole] + rest, axis=0).ravel()
    cells -= cells.mean()
    norm = float(np.linalg.norm(cells))
    return (cells / norm if norm > 0 else cells).astype(np.float32)


def _candidates(
    ordered: Sequence[Fingerprint],
) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of similar length and sketch; ``ordered`` is sorted by length."""
    if not ordered:
        return
    lengths_N = np.array([len(print_.words_T) for print_ in ordered])
    sketches_ND = np.stack([print_.sketch_D for print_ in ordered])
    for start in range(0, len(ordered), _SKETCH_BLOCK):
        stop = min(start + _SKETCH_BLOCK, len(ordered))
        reach = int(
            np.searchsorted(lengths_N, lengths_N[stop - 1] + _LENGTH_TOLERANCE_FRAMES, "right")
        )
        for other in range(start, reach, _SKETCH_BLOCK):
            cosine = (
                sketches_ND[start:stop] @ sketches_ND[other : min(other + _SKETCH_BLOCK, reach)].T
            )
            left_P, right_P = np.nonzero(cosine >= _SKETCH_COSINE)
            left_P, right_P = left_P + start, right_P + other
            near = lengths_N[right_P] - lengths_N[left_P] <= _LENGTH_TOLERANCE_FRAMES
            keep = (left_P < right_P) & near
            yield left_P[keep], right_P[keep]


def _distances(
    ordered: Sequence[Fingerprint], left_P: NDArray[np.int64], right_P: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest share of differing signs over the shifts, and the share that may differ.

    Only frames that are active in both count, and most of the first's must be.
    """
    width = max((len(ordered[index].words_T) for index in right_P), default=0) + 2 * _MAX_SHIFT
    left_words, left_active = _padded(ordered, left_P, width)
    right_words, right_active = _padded(ordered, right_P, width)
    active_P = np.maximum(1, left_active.sum(axis=1))
    needed_P = np.maximum(_MIN_ACTIVE_FRAMES, 0.6 * active_P)
    best_P = np.ones(len(left_P))
    for shift in range(-_MAX_SHIFT, _MAX_SHIFT + 1):
        both = left_active & np.roll(right_active, shift, axis=1)
        differing = np.bitwise_count(left_words ^ np.roll(right_words, shift, axis=1))
        count_P = both.sum(axis=1)
        share_P = np.where(both, differing, 0).sum(axis=1) / np.maximum(32 * count_P, 1)
        best_P = np.where(count_P >= needed_P, np.minimum(best_P, share_P), best_P)
    return best_P, _MAX_DISTANCE - _SHORT_MARGIN / np.sqrt(32 * active_P)


def _padded(
    ordered: Sequence[Fingerprint], index_P: NDArray[np.int64], width: int
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    words_PT = np.zeros((len(index_P), width), np.uint32)
    active_PT = np.zeros((len(index_P), width), np.bool_)
    for row, index in enumerate(index_P):
        length = len(ordered[index].words_T)
        words_PT[row, :length] = ordered[index].words_T
        active_PT[row, :length] = ordered[index].active_T
    return words_PT, active_PT
