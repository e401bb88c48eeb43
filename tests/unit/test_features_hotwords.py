"""Expected phrases: what they earn, what is given back, and that they are heard."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.decode import BeamDecoder, DecoderConfig, hotword_graph, make_decoder
from features.hotwords import START, HotwordGraph
from features.language_model import ArpaModel, train_witten_bell
from features.lexicon import Lexicon
from features.tokens import TokenTable
from governance.errors import ConfigError

TABLE = TokenTable.from_alphabet("abcdefghijklmnopqrstuvwxyz' ")
TINY = TokenTable.from_alphabet("ab")
SENTENCES = ["a latte please", "can i have two teas", "tea for two", "a tea please", "a team"]
LM = ArpaModel.from_text(train_witten_bell(SENTENCES))
LEXICON = Lexicon.from_sentences(SENTENCES)
BOOST = 0.5


def graph_of(*phrases: str, table: TokenTable = TABLE, boost: float = BOOST) -> HotwordGraph:
    graph, unusable = hotword_graph(phrases, table, None, boost=boost)
    assert graph is not None and not unusable
    return graph


def earned(graph: HotwordGraph, text: str, table: TokenTable = TABLE) -> float:
    """What a whole text earns."""
    state, total = START, 0.0
    for token in table.encode(f"{text} " if text else ""):
        gain, state = graph.step(state, token)
        assert gain <= graph.most + 1e-9
        total += gain
    return total + graph.leave(state)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("flat white", 11),
        ("a flat white please", 11),
        ("flat", 0),  # begun and not ended
        ("flat whites", 0),  # goes on inside the last word
        ("a steam", 0),  # not at the beginning of a word
        ("tea", 4),
        ("flat white tea", 15),
        ("tea tea", 8),
        ("flat flat white", 11),  # falls back into a new beginning
        ("", 0),
    ],
)
def test_whole_phrases_earn_and_begun_ones_give_back(text: str, letters: int) -> None:
    graph = graph_of("flat white", "tea")
    assert earned(graph, text) == pytest.approx(BOOST * letters)


def test_phrases_may_overlap_and_hold_one_another() -> None:
    graph = graph_of("flat white", "white mocha", "a flat white with", "flat")
    assert earned(graph, "flat white mocha") == pytest.approx(BOOST * (11 + 12))
    assert earned(graph, "a flat white yes") == pytest.approx(BOOST * 11)
    assert earned(graph, "flat") == pytest.approx(BOOST * 5)
    assert earned(graph, "flat whi") == pytest.approx(BOOST * 5)


words = st.text(alphabet="ab", min_size=1, max_size=3)
phrases_of = st.lists(st.lists(words, min_size=1, max_size=2).map(" ".join), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(phrases=phrases_of, text=st.lists(words, max_size=6).map(" ".join))
def test_only_texts_that_hold_a_whole_phrase_earn(phrases: list[str], text: str) -> None:
    graph = graph_of(*phrases, table=TINY)
    said = any(f" {phrase} " in f" {text} " for phrase in phrases)
    total = earned(graph, text, TINY)
    assert total >= -1e-9
    assert (total > 1e-9) == said


def random_logp(frames: int, seed: int, sharpness: float = 1.5) -> NDArray[np.float64]:
    logits = np.random.default_rng(seed).normal(size=(frames, TINY.size)) * sharpness
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("closed", [(), ("a", "ab", "ba", "bba")])
def test_a_wide_beam_finds_the_best_text_of_all_alignments(
    seed: int, closed: tuple[str, ...]
) -> None:
    logp = random_logp(5, seed)
    sums: dict[str, float] = {}
    for path in itertools.product(range(TINY.size), repeat=len(logp)):
        p = math.exp(sum(logp[frame, token] for frame, token in enumerate(path)))
        text = " ".join(TINY.decode(token for token, _ in itertools.groupby(path)).split())
        if not closed or set(text.split()) <= set(closed):
            sums[text] = sums.get(text, 0.0) + p
    graph = graph_of("ab", "ba a", table=TINY, boost=1.0)
    scores = {text: math.log(p) + earned(graph, text, TINY) for text, p in sums.items()}
    decoder = BeamDecoder(
        TINY, beam=10**6, token_threshold=1e9, beam_threshold=1e9, blank_skip=2.0, recombine=False,
        trie=Lexicon.from_words(closed).trie(TINY) if closed else None, hotwords=graph,
    )  # fmt: skip
    decoder.accept(logp)
    found = decoder.finish()
    assert found.text == max(scores, key=lambda text: scores[text])
    assert found.score == pytest.approx(scores[found.text], abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beam", [1, 4, 8])
def test_skipping_hopeless_extensions_changes_no_answer(
    seed: int, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logp = random_logp(30, seed)
    trie = Lexicon.from_words(["a", "ab", "ba", "bba"]).trie(TINY)
    graph = graph_of("ab", "ba a", "a ab", table=TINY, boost=0.8)
    answers = []
    for _ in range(2):
        decoder = BeamDecoder(TINY, beam=beam, beta=0.5, trie=trie, recombine=False, hotwords=graph)
        decoder.accept(logp)
        answers.append(decoder.finish())
        monkeypatch.setattr(BeamDecoder, "_floor", lambda self, heard: -math.inf)
    assert answers[0] == answers[1]


def confused(first: str, second: str, sure: float) -> NDArray[np.float64]:
    """Frames in which every letter of ``first`` may be that of ``second``, less likely."""
    rows = []
    for letters in zip(first, second, strict=True):
        row = np.full(TABLE.size, 1e-4)
        row[TABLE.ids[letters[1]]] += 1 - sure
        row[TABLE.ids[letters[0]]] += sure
        rows += [row, np.eye(1, TABLE.size)[0] + 1e-4]
    probabilities = np.array(rows)
    return np.log(probabilities / probabilities.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    "config",
    [
        DecoderConfig(kind="greedy"),
        DecoderConfig(),
        DecoderConfig(lexicon=True),
    ],
)
def test_an_expected_word_wins_where_it_is_nearly_heard(config: DecoderConfig) -> None:
    logp = confused("a tea pleas", "a team plea", 0.6)[:12]
    texts = []
    for phrases in ((), ("team",)):
        graph, _ = hotword_graph(phrases, TABLE, None, boost=1.0)
        decoder = make_decoder(config, TABLE, LM, LEXICON, graph)
        decoder.accept(logp)
        texts.append(decoder.finish().text)
    assert "team" not in texts[0] and texts[1] == "a team"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), frames=st.integers(0, 200), cut=st.integers(0, 200))
def test_no_boost_changes_nothing_and_chunks_change_nothing(
    seed: int, frames: int, cut: int
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(frames, TABLE.size)) * 2.5
    logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    config = DecoderConfig(alpha=0.8, beta=1.0, lexicon=True)
    none, _ = hotword_graph(["tea"], TABLE, LEXICON, boost=0.0)
    some, _ = hotword_graph(["tea please", "two"], TABLE, LEXICON, boost=0.7)
    answers = []
    for graph, parts in (
        (None, [logp]),
        (none, [logp]),
        (some, [logp]),
        (some, [logp[:cut], logp[cut:]]),
    ):
        decoder = make_decoder(config, TABLE, LM, LEXICON, graph)
        for part in parts:
            decoder.accept(part)
        answers.append(decoder.finish())
    assert answers[0] == answers[1]
    assert answers[2] == answers[3]


def test_what_cannot_be_spelt_is_counted() -> None:
    graph, unusable = hotword_graph(
        ["tea", "espresso", "café", " ", "a tea"], TABLE, LEXICON, boost=1
    )
    assert graph is not None and unusable == 3
    assert hotword_graph(["espresso"], TABLE, LEXICON, boost=1.0) == (None, 1)
    with pytest.raises(ConfigError):
        HotwordGraph([[1]], space=TABLE.space, boost=-1.0)
