import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import bootstrap, scoring
from data.scoring import ScoredUtterance, score

_WORDS = st.lists(st.sampled_from(["a", "b", "cc", "d"]), max_size=9)
_CHARS = st.text(alphabet="abc ", max_size=20)


@given(st.lists(st.sampled_from(["a", "b", "cc"]), min_size=1, max_size=9), _WORDS)
def test_word_errors_agree_with_jiwer_by_kind(ref: list[str], hyp: list[str]) -> None:
    counts = scoring.count_words(" ".join(ref), " ".join(hyp))
    theirs = jiwer.process_words(" ".join(ref), " ".join(hyp))
    assert (counts.sub, counts.ins, counts.del_) == (
        theirs.substitutions,
        theirs.insertions,
        theirs.deletions,
    )
    assert counts.rate == pytest.approx(theirs.wer)


@given(_CHARS.map(str.strip).filter(bool), _CHARS.map(str.strip))
def test_character_errors_agree_with_jiwer(ref: str, hyp: str) -> None:
    assert scoring.count_chars(ref, hyp).rate == pytest.approx(jiwer.cer(ref, hyp))


@given(_WORDS, _WORDS)
def test_an_alignment_rebuilds_both_sides_and_is_minimal(ref: list[str], hyp: list[str]) -> None:
    ops = scoring.align(ref, hyp)
    assert [op.ref for op in ops if op.kind != "ins"] == ref
    assert [op.hyp for op in ops if op.kind != "del"] == hyp
    assert all((op.kind == "equal") == (op.ref == op.hyp) for op in ops)
    distance = scoring.count(ref, hyp).errors
    assert distance == scoring.count(hyp, ref).errors
    assert abs(len(ref) - len(hyp)) <= distance <= max(len(ref), len(hyp))


def test_long_texts_are_aligned_in_memory_and_time() -> None:
    generator = np.random.default_rng(0)
    ref = [str(word) for word in generator.integers(0, 50, 1500)]
    hyp = [word for word in ref if generator.random() > 0.1]
    assert scoring.count(ref, hyp).errors == len(ref) - len(hyp)


def test_an_empty_reference_has_no_infinite_rate() -> None:
    assert scoring.count_words("", "").rate == 0.0
    assert scoring.count_words("", "two words").rate == 2.0


def test_scoring_normalises_both_sides() -> None:
    assert score("u1", "s1", "It's 5%!", "its five percent").words == scoring.Counts(
        sub=1, ins=0, del_=0, ref=3
    )


def _items(
    errors: list[tuple[str, int]], words: int = 10, prefix: str = "u"
) -> list[ScoredUtterance]:
    return [
        score(
            f"{prefix}{index}",
            speaker,
            "a " * words,
            "b " * wrong + "a " * (words - wrong),
            slices={"speaker": speaker},
        )
        for index, (speaker, wrong) in enumerate(errors)
    ]


def test_the_interval_is_wider_when_errors_come_by_speaker() -> None:
    items = _items([(f"s{index % 6}", 8 if index % 6 == 0 else 1) for index in range(120)])
    by_speaker = scoring.rate_interval(items, seed=1)
    by_utterance = scoring.rate_interval(items, cluster="utterance", seed=1)
    assert by_speaker.low < by_utterance.low < by_speaker.point
    assert by_speaker.point < by_utterance.high < by_speaker.high
    assert by_speaker.point == pytest.approx(scoring.total(items).rate)


def test_intervals_repeat_with_the_seed_and_not_with_the_order() -> None:
    items = _items([(f"s{index % 7}", index % 4 + index % 7) for index in range(40)])
    first = scoring.rate_interval(items, seed=3)
    assert scoring.rate_interval(items[::-1], seed=3) == first
    assert scoring.rate_interval(items, seed=4) != first


def test_unknown_speakers_and_a_lone_speaker_are_drawn_by_utterance() -> None:
    assert bootstrap.cluster_names(["", "", "x"], ["a", "b", "c"]) == [
        "utterance:a", "utterance:b", "speaker:x",
    ]  # fmt: skip
    lone = scoring.rate_interval(_items([("s", 0), ("s", 6), ("s", 1)]), seed=0)
    assert lone.low < lone.point < lone.high


@given(st.integers(0, 2**31), st.integers(2, 12))
def test_an_interval_holds_its_point(seed: int, speakers: int) -> None:
    generator = np.random.default_rng(seed)
    items = _items(
        [(f"s{index % speakers}", int(generator.integers(0, 11))) for index in range(24)]
    )
    interval = scoring.rate_interval(items, resamples=50, seed=seed)
    assert 0.0 <= interval.low <= interval.point <= interval.high <= 1.0


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for trial in range(150):
        rates = generator.beta(2, 8, size=25)
        errors_C = generator.binomial(200, rates).astype(float)
        interval = bootstrap.percentile_interval(
            errors_C.sum() / 5000, errors_C[None], np.full((1, 25), 200.0),
            resamples=400, seed=trial,
        )  # fmt: skip
        hits += interval.low <= 0.2 <= interval.high
    assert 0.86 <= hits / 150 <= 0.99


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    worse = [(f"s{index % 8}", index % 8) for index in range(64)]
    a, b = _items(worse), _items([(speaker, wrong + 1) for speaker, wrong in worse])
    difference = scoring.paired_difference(a, b, seed=2)
    assert difference.low == pytest.approx(0.1) and difference.high == pytest.approx(0.1)
    backwards = scoring.paired_difference(b[::-1], a, seed=2)
    assert backwards.point == pytest.approx(-0.1)


def test_a_difference_between_other_utterances_is_refused() -> None:
    with pytest.raises(scoring.ScoringError, match="u0"):
        scoring.paired_difference(_items([("s", 1)]), _items([("s", 1)], prefix="v"), seed=0)
    with pytest.raises(scoring.ScoringError):
        scoring.rate_interval([], seed=0)


def test_slices_are_named_and_the_worst_comes_first() -> None:
    rows = scoring.by_slice(_items([("good", 0), ("bad", 5), ("good", 1), ("bad", 7)]), seed=0)
    assert [(row.name, row.value, row.utterances, row.words) for row in rows] == [
        ("speaker", "bad", 2, 20),
        ("speaker", "good", 2, 20),
    ]
    assert rows[0].wer.point == pytest.approx(0.6)
