"""Beam search against the sum over every alignment, and what a caller sees of a decoder."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from features.decode import (
    BeamDecoder,
    DecoderConfig,
    DecodingError,
    decode,
    greedy,
    make_decoder,
)
from features.language_model import ArpaModel, train_witten_bell
from features.lexicon import Lexicon
from features.tokens import TokenTable
from governance.errors import ConfigError

TINY = TokenTable.from_alphabet("ab")
TINY_LM = ArpaModel.from_text(train_witten_bell(["a b", "ab a", "b b a", "ab"]))
TABLE = TokenTable.from_alphabet("abcdefghijklmnopqrstuvwxyz' ")
NO_PRUNING = {
    "beam": 10**6, "token_threshold": 1e9, "beam_threshold": 1e9, "blank_skip": 2.0,
    "recombine": False,
}  # fmt: skip


def random_logp(frames: int, size: int, seed: int, sharpness: float = 1.5) -> NDArray[np.float64]:
    logits = np.random.default_rng(seed).normal(size=(frames, size)) * sharpness
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def spelt(text: str, *, table: TokenTable = TABLE, sure: float = 0.998) -> NDArray[np.float64]:
    """One frame per letter with a blank after each; ``-`` is one more blank."""
    ids = [0 if letter == "-" else table.ids[letter] for letter in "-".join(text) + "-"]
    probabilities = np.full((len(ids), table.size), (1 - sure) / (table.size - 1))
    probabilities[np.arange(len(ids)), ids] = sure
    return np.log(probabilities)


def every_text(logp_TV: NDArray[np.float64], table: TokenTable) -> dict[str, float]:
    """Text -> sum over all its alignments, by enumeration."""
    sums: dict[str, float] = {}
    for path in itertools.product(range(table.size), repeat=len(logp_TV)):
        logp = sum(logp_TV[frame, token] for frame, token in enumerate(path))
        text = " ".join(table.decode(token for token, _ in itertools.groupby(path)).split())
        sums[text] = sums.get(text, 0.0) + math.exp(logp)
    return sums


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("alpha", "beta", "words"),
    [(0.0, 0.0, ()), (0.0, 0.9, ()), (1.3, 0.5, ()), (0.7, -0.4, ("ab", "b")), (0.0, 0.0, ("ba",))],
)
def test_a_wide_beam_finds_the_best_text_of_all_alignments(
    seed: int, alpha: float, beta: float, words: tuple[str, ...]
) -> None:
    logp = random_logp(5, TINY.size, seed)
    scores = {
        text: math.log(p)
        + beta * len(text.split())
        + (alpha * TINY_LM.sentence_logp(text.split()) if alpha else 0.0)
        for text, p in every_text(logp, TINY).items()
        if not words or set(text.split()) <= set(words)
    }
    decoder = BeamDecoder(
        TINY,
        alpha=alpha,
        beta=beta,
        lm=TINY_LM if alpha else None,
        trie=Lexicon.from_words(words).trie(TINY) if words else None,
        **NO_PRUNING,
    )
    decoder.accept(logp)
    found = decoder.finish()
    assert found.text == max(scores, key=lambda text: scores[text])
    assert found.score == pytest.approx(scores[found.text], abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("beam", [1, 2, 4, 8])
def test_skipping_hopeless_extensions_changes_no_answer(
    seed: int, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logp = random_logp(30, TINY.size, seed)
    trie = Lexicon.from_words(["a", "ab", "ba", "bba"]).trie(TINY)
    answers = []
    for _ in range(2):
        decoder = BeamDecoder(
            TINY, beam=beam, alpha=0.8, beta=1.0, lm=TINY_LM, trie=trie, recombine=False
        )
        decoder.accept(logp)
        answers.append(decoder.finish())
        monkeypatch.setattr(BeamDecoder, "_floor", lambda self, heard: -math.inf)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("seed", range(8))
def test_recombination_keeps_the_best_text(seed: int) -> None:
    logp = random_logp(14, TINY.size, seed, sharpness=3.0)
    answers = []
    for recombine in (False, True):
        decoder = BeamDecoder(TINY, beam=500, alpha=0.8, beta=1.0, lm=TINY_LM, recombine=recombine)
        decoder.accept(logp)
        answers.append(decoder.finish().text)
    assert answers[0] == answers[1]


def test_long_utterances_do_not_underflow() -> None:
    found = decode(random_logp(4000, TINY.size, 1), DecoderConfig(beam=4), TINY)
    assert math.isfinite(found.score) and found.text


def test_blank_fast_path_costs_no_accuracy() -> None:
    logp = spelt("a flat white", sure=0.9995)
    slow = BeamDecoder(TABLE, blank_skip=2.0)
    fast = BeamDecoder(TABLE)
    slow.accept(logp)
    fast.accept(logp)
    ours, theirs = fast.finish(), slow.finish()
    assert (ours.text, ours.frames) == (theirs.text, theirs.frames)
    assert ours.score == pytest.approx(theirs.score, abs=1e-3)


def test_greedy_collapses_repeats_and_blanks() -> None:
    logp = np.log(np.eye(TINY.size)[[0, 2, 2, 0, 2, 3, 3, 1, 1, 3, 0]] * 0.9 + 0.025)
    found = greedy(logp, TINY)
    assert found.text == "aab b"
    assert found.tokens == tuple(TINY.encode("aab b"))
    assert found.frames == (1, 4, 5, 7, 9)


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_words_have_times_and_confidence(kind: str) -> None:
    found = decode(spelt("-go  to it "), DecoderConfig(kind=kind), TABLE)
    assert found.text == "go to it"
    assert [word.text for word in found.words] == ["go", "to", "it"]
    # every letter holds two frames: itself and a blank; "-go  to it " starts with two blanks
    assert [(w.start_frame, w.end_frame) for w in found.words] == [(2, 5), (10, 13), (16, 19)]
    assert all(0.5 < word.confidence <= 1 for word in found.words)
    assert TABLE.encode(found.text) == list(found.tokens)
    assert found.confidence == pytest.approx(np.mean([w.confidence for w in found.words]))


def test_an_unsure_word_has_less_confidence() -> None:
    logp = np.concatenate([spelt("sure "), spelt("maybe", sure=0.5)])
    sure, maybe = decode(logp, DecoderConfig(), TABLE).words
    assert maybe.confidence < 0.5 < sure.confidence


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_nothing_said_is_an_empty_text(kind: str) -> None:
    for logp in (np.empty((0, TABLE.size)), spelt("-----"), spelt("  ")):
        found = decode(logp, DecoderConfig(kind=kind), TABLE)
        assert (found.text, found.words, found.tokens) == ("", (), ())
        assert 0 <= found.confidence <= 1


def test_the_lexicon_repairs_a_misspelt_word() -> None:
    lexicon = Lexicon.from_words(["latte", "coffee", "please"])
    logp = spelt("lattw please", sure=0.6)
    assert decode(logp, DecoderConfig(), TABLE).text == "lattw please"
    config = DecoderConfig(lexicon=True, token_threshold=20.0, token_beam=28)
    assert decode(logp, config, TABLE, None, lexicon).text == "latte please"


def test_the_language_model_chooses_between_homophones() -> None:
    lm = ArpaModel.from_text(train_witten_bell(["i want two", "i want to go", "two to go"] * 5))
    logp = np.logaddexp(spelt("i want two"), spelt("i want to-")) - math.log(2)
    without = decode(logp, DecoderConfig(), TABLE)
    assert decode(logp, DecoderConfig(alpha=2.0, beta=1.0), TABLE, lm).text == "i want two"
    assert without.text in ("i want two", "i want to")


@pytest.mark.parametrize(
    ("spoken", "expected"), [("a cappucc", "a cappuccino"), ("a c", "a"), ("cap", "")]
)
def test_a_cut_word_is_completed_or_dropped(spoken: str, expected: str) -> None:
    lexicon = Lexicon.from_words(["a", "cappuccino", "coffee"])
    config = DecoderConfig(beam=1, lexicon=True)
    found = decode(spelt(spoken, sure=0.9999), config, TABLE, None, lexicon)
    assert found.text == expected
    assert list(found.frames) == sorted(found.frames)
    assert len(found.frames) == len(found.tokens)


def test_partials_grow_and_stable_words_stay() -> None:
    decoder = make_decoder(DecoderConfig(), TABLE)
    partials, stable = [], []
    for frame in spelt("a latte please"):
        decoder.accept(frame[None])
        partials.append(decoder.partial())
        stable.append(decoder.stable_text)
    assert partials[0] == "a" and partials[-1] == "a latte please"
    assert "a latte" in stable and all("a latte please".startswith(text) for text in stable)
    assert decoder.best().text == "a latte please"
    assert decoder.finish().text.startswith(stable[-1])


def test_a_finished_decoder_and_foreign_frames_are_refused() -> None:
    for config in (DecoderConfig(kind="greedy"), DecoderConfig()):
        decoder = make_decoder(config, TABLE)
        with pytest.raises(DecodingError, match=r"shape \(3, 7\), expected \[frames, 29\]"):
            decoder.accept(np.zeros((3, 7)))
        with pytest.raises(DecodingError, match="NaN"):
            decoder.accept(np.full((1, 29), np.nan))
        decoder.finish()
        with pytest.raises(DecodingError, match="has ended"):
            decoder.accept(spelt("a"))


def test_impossible_frames_are_passed_over() -> None:
    logp = spelt("tea")
    logp = np.insert(logp, 2, -np.inf, axis=0)
    assert decode(logp, DecoderConfig(), TABLE).text == "tea"


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "best"}, {"beam": 0}, {"alpha": -1.0}, {"alpha": math.nan}, {"token_threshold": 0.0}],
)
def test_bad_configurations_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        DecoderConfig(**wrong)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"decoder.{next(iter(wrong))}: ")


def test_a_missing_language_model_or_lexicon_is_refused() -> None:
    with pytest.raises(ConfigError, match="no language model"):
        make_decoder(DecoderConfig(alpha=0.5), TABLE)
    with pytest.raises(ConfigError, match=r"lexicon\.txt"):
        make_decoder(DecoderConfig(lexicon=True), TABLE)
    assert make_decoder(DecoderConfig(kind="greedy", alpha=0.5, lexicon=True), TABLE)


ORDERS = ArpaModel.from_text(
    train_witten_bell(["one large tea", "one large tea", "two small teas", "see you", "see you"])
)


def after_a_pause(first: str, then: str) -> str:
    """What is heard after a pause, with ``?`` in ``then`` as doubt between ``t`` and ``s``."""
    decoder = make_decoder(DecoderConfig(alpha=1.0, beta=1.0), TABLE, ORDERS)
    decoder.accept(spelt(first))
    assert decoder.pause().text == first
    logp = spelt(then.replace("?", "t"))
    for frame in np.flatnonzero(np.exp(logp[:, TABLE.ids["t"]]) > 0.5):
        logp[frame, [TABLE.ids["t"], TABLE.ids["s"]]] = math.log(0.49), math.log(0.5)
    decoder.accept(logp)
    return decoder.finish().text


def test_a_sentence_goes_on_after_a_pause_inside_it() -> None:
    assert after_a_pause("one large", "?ea") == "tea"


def test_a_new_sentence_begins_after_a_pause_at_an_end() -> None:
    assert after_a_pause("one large tea", "?ee you") == "see you"


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_an_utterance_after_a_pause_has_its_own_frames(kind: str) -> None:
    decoder = make_decoder(DecoderConfig(kind=kind), TABLE)
    decoder.accept(spelt("yes"))
    before = decoder.pause()
    decoder.accept(spelt("yes"))
    again = decoder.finish()
    assert (again.text, again.frames) == (before.text, before.frames)
