"""Whether anybody spoke: doubt per stretch, and the limit that a dev split gives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.doubt import FLOOR_NATS, Judged, LetterDoubt, doubt_limit
from features.tokens import TokenTable

TABLE = TokenTable.from_alphabet("abcdefgh")


def frames(*chances: dict[int, float]) -> NDArray[np.float64]:
    """Natural-log probabilities; what is not given is shared by the other tokens."""
    rows = []
    for chance in chances:
        rest = (1 - sum(chance.values())) / (TABLE.size - len(chance))
        rows.append([chance.get(token, rest) for token in range(TABLE.size)])
    return np.log(np.array(rows))


def nats(logp_TV: NDArray[np.float64]) -> float:
    doubt = LetterDoubt(TABLE)
    doubt.accept(logp_TV)
    return doubt.nats


A, B = (TABLE.encode(letter)[0] for letter in "ab")
SURE, TORN, QUIET = {A: 0.97}, {A: 0.48, B: 0.48}, {0: 0.999}


def test_a_clear_letter_leaves_little_doubt_and_two_equal_ones_leave_much() -> None:
    assert nats(frames(SURE)) < 0.3 < np.log(2) < nats(frames(TORN))


def test_silence_between_letters_says_nothing() -> None:
    alone = nats(frames(SURE, TORN))
    assert abs(nats(frames(QUIET, QUIET, SURE, QUIET, TORN, QUIET)) - alone) < 1e-3
    assert nats(frames(QUIET)[:0]) == 0.0


def test_impossible_tokens_are_no_number_gone_wrong() -> None:
    logp_TV = np.full((1, TABLE.size), -np.inf)
    logp_TV[0, A] = 0.0
    assert nats(logp_TV) == 0.0


@given(cut=st.integers(0, 30))
def test_chunk_borders_leave_no_trace(cut: int) -> None:
    logits_TV = np.random.default_rng(3).normal(0, 3, (30, TABLE.size))
    logp_TV = logits_TV - np.logaddexp.reduce(logits_TV, axis=1, keepdims=True)
    doubt = LetterDoubt(TABLE)
    doubt.accept(logp_TV[:cut])
    doubt.accept(logp_TV[cut:])
    assert doubt.nats == nats(logp_TV)
    doubt.reset()
    assert doubt.nats == 0.0


def judged(doubt_nats: float, words: int, errors: int) -> Judged:
    return Judged(doubt_nats=doubt_nats, words=words, errors=errors)


def test_a_model_that_knows_its_speech_gets_the_floor() -> None:
    lost = judged(1.4, 8, 8)  # nothing was right: losing it costs nothing
    assert doubt_limit([judged(0.2, 10, 0)] * 50 + [lost]) == FLOOR_NATS
    assert doubt_limit([]) == FLOOR_NATS


def test_a_model_that_is_unsure_keeps_its_words() -> None:
    """The limit lies at the last recording that the dev split cannot spare."""
    found = doubt_limit([judged(0.3, 10, 0)] * 50 + [judged(0.9, 10, 2), judged(0.8, 10, 9)])
    assert 0.9 <= found < 0.9002


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20), st.integers(0, 20)), max_size=40))
def test_a_limit_costs_no_more_than_it_may(rows: list[tuple[float, int, int]]) -> None:
    recordings = [judged(*row) for row in rows]
    limit = doubt_limit(recordings)
    lost = sum(one.words - one.errors for one in recordings if one.doubt_nats > limit)
    assert lost <= max(0, 0.001 * sum(one.words for one in recordings))
