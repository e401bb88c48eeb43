"""Streaming equals batch, bit for bit, however the audio is cut."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.fbank import StreamingFbank, log_mel
from features.norm import RunningNormaliser, normalise
from features.spec import FeatureSpec

SPEC = FeatureSpec()
_NOISE = np.random.default_rng(3).standard_normal(60_000)
_LEVEL = np.exp(3 * np.sin(np.arange(60_000) / 2000))
WAVE_T = (0.02 * _NOISE * _LEVEL + 0.01).astype(np.float32)
PRIOR_F = np.linspace(5, 12, SPEC.mel_bins)
STD_F = np.linspace(2, 3, SPEC.mel_bins)

chunkings = st.one_of(
    st.lists(st.integers(0, 400), min_size=1, max_size=60),
    st.lists(st.integers(0, 12_000), min_size=1, max_size=12),
    st.integers(1, 2500).map(lambda size: [size] * (40_000 // size)),
)


@settings(max_examples=60, deadline=None)
@given(sizes=chunkings, offset=st.integers(0, 5000))
def test_every_chunking_gives_the_bits_of_the_whole(sizes: list[int], offset: int) -> None:
    wave_T = WAVE_T[offset : offset + sum(sizes)]
    stream, normaliser = StreamingFbank(SPEC), RunningNormaliser(PRIOR_F, STD_F)
    raw, normal, start = [], [], 0
    for size in sizes:
        raw.append(stream.accept(wave_T[start : start + size]))
        normal.append(normaliser.apply(raw[-1]))
        start += size
    raw.append(stream.finish())
    normal.append(normaliser.apply(raw[-1]))
    whole = log_mel(wave_T, SPEC)
    np.testing.assert_array_equal(np.concatenate(raw), whole)
    np.testing.assert_array_equal(np.concatenate(normal), normalise(whole, PRIOR_F, STD_F))


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 200), count=st.integers(1, 120))
def test_a_frame_depends_on_its_own_samples_only(first: int, count: int) -> None:
    start, stop = first * SPEC.hop_samples, (first + count - 1) * SPEC.hop_samples + 400
    alone = log_mel(WAVE_T[start:stop], SPEC)
    np.testing.assert_array_equal(alone, log_mel(WAVE_T, SPEC)[first : first + len(alone)])
