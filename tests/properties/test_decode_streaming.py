"""However log-probabilities are cut into chunks, decoders and the endpointer answer the same."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.decode import DecoderConfig, StreamingDecoder, decode, make_decoder
from features.endpoint import EndpointConfig, Endpointer
from features.language_model import ArpaModel, train_witten_bell
from features.lexicon import Lexicon
from features.tokens import TokenTable

TABLE = TokenTable.from_alphabet("abcdefghijklmnopqrstuvwxyz' ")
SENTENCES = ["a latte please", "can i have two teas", "tea for two", "a tea please"]
LM = ArpaModel.from_text(train_witten_bell(SENTENCES))
LEXICON = Lexicon.from_sentences(SENTENCES)
CONFIGS = [
    DecoderConfig(kind="greedy"),
    DecoderConfig(beam=4),
    DecoderConfig(beam=8, alpha=0.8, beta=1.0),
    DecoderConfig(beam=8, alpha=0.8, beta=1.0, lexicon=True),
    DecoderConfig(beam=2, lexicon=True),
]


def peaky_logp(frames: int, seed: int, noise: float) -> NDArray[np.float32]:
    """A sentence over and over, letters and blanks, the more confused the larger ``noise``."""
    generator = np.random.default_rng(seed)
    text = " ".join(SENTENCES[(seed + turn) % len(SENTENCES)] for turn in range(frames // 20 + 1))
    logits = generator.normal(scale=noise, size=(frames, TABLE.size))
    for frame in range(frames):
        spoken = frame % 2 == 0 and (frame // 24) % 3 != 2
        logits[frame, TABLE.ids[text[frame // 2 % len(text)]] if spoken else 0] += 9.0
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits.astype(np.float32)


def cut(frames: int, sizes: list[int]) -> list[slice]:
    borders = list(itertools.accumulate(sizes, initial=0))
    borders = [border for border in borders if border < frames] + [frames]
    return [slice(*pair) for pair in itertools.pairwise(borders)]


sizes = st.lists(st.integers(0, 40), min_size=1, max_size=40)
noises = st.sampled_from([0.5, 2.0, 4.0])


@settings(max_examples=120, deadline=None)
@given(
    config=st.sampled_from(CONFIGS), frames=st.integers(0, 300), seed=st.integers(0, 99),
    noise=noises, sizes=sizes,
)  # fmt: skip
def test_every_chunking_gives_the_same_hypothesis(
    config: DecoderConfig, frames: int, seed: int, noise: float, sizes: list[int]
) -> None:
    logp = peaky_logp(frames, seed, noise)
    whole = decode(logp, config, TABLE, LM, LEXICON)
    decoder = make_decoder(config, TABLE, LM, LEXICON)
    stable = _stream(decoder, logp, cut(frames, sizes))
    assert decoder.frames_seen == frames
    found = decoder.finish()
    assert found == whole
    for text in stable:
        assert whole.text.startswith(text)
    assert stable == sorted(stable, key=len)


def _stream(decoder: StreamingDecoder, logp: NDArray[np.float32], slices: list[slice]) -> list[str]:
    stable = []
    for chunk in slices:
        decoder.accept(logp[chunk])
        assert decoder.partial().startswith(decoder.stable_text)
        stable.append(decoder.stable_text)
    return stable


@settings(max_examples=60, deadline=None)
@given(
    config=st.sampled_from(CONFIGS), frames=st.integers(1, 300), seed=st.integers(0, 99),
    noise=noises,
)  # fmt: skip
def test_a_hypothesis_is_consistent(
    config: DecoderConfig, frames: int, seed: int, noise: float
) -> None:
    found = decode(peaky_logp(frames, seed, noise), config, TABLE, LM, LEXICON)
    assert list(found.tokens) == TABLE.encode(found.text)
    assert len(found.frames) == len(found.tokens)
    assert list(found.frames) == sorted(found.frames)
    assert " ".join(word.text for word in found.words) == found.text
    end = 0
    for word in found.words:
        assert end <= word.start_frame < word.end_frame <= frames
        assert 0.0 <= word.confidence <= 1.0
        end = word.end_frame
    if config.needs_lexicon:
        assert {word.text for word in found.words} <= set(LEXICON.words)


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(0, 300), seed=st.integers(0, 99), noise=noises, sizes=sizes)
def test_every_chunking_gives_the_same_endpoints(
    frames: int, seed: int, noise: float, sizes: list[int]
) -> None:
    logp = peaky_logp(frames, seed, noise)
    config = EndpointConfig(trailing_silence_ms=600, initial_silence_ms=1000, max_utterance_ms=3000)
    whole = Endpointer(config, TABLE, frame_ms=40).accept(logp)
    endpointer = Endpointer(config, TABLE, frame_ms=40)
    found = [e for chunk in cut(frames, sizes) for e in endpointer.accept(logp[chunk])]
    assert found == list(whole)
