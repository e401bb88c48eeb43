"""Witten-Bell estimation, the ARPA reader, and parity with KenLM."""

import math
from itertools import pairwise
from pathlib import Path

import pytest

from features.arpa import LanguageModelError
from features.language_model import ArpaModel, train_witten_bell

SENTENCES = [
    "can i have a coffee please",
    "can i have two coffees",
    "i would like a latte please",
    "a latte please",
    "two coffees to go",
    "",
]
ARPA = train_witten_bell(SENTENCES)
LM = ArpaModel.from_text(ARPA)


@pytest.mark.parametrize(
    "history", [[], ["can"], ["can", "i"], ["a", "latte"], ["go", "can"], ["tea"], ["tea", "a"]]
)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one_after_any_history(history: list[str], order: int) -> None:
    lm = ArpaModel.from_text(train_witten_bell(SENTENCES, order=order))
    state = lm.start
    for word in history:
        _, state = lm.score(state, word)
    total = sum(math.exp(lm.score(state, word)[0]) for word in (*lm.vocabulary, "<unk>", "</s>"))
    assert total == pytest.approx(1.0, abs=1e-5)


def test_witten_bell_by_hand() -> None:
    lm = ArpaModel.from_text(train_witten_bell(["a b", "a"], order=2))
    # 5 tokens of 3 types over the 4 words a b </s> <unk>
    p_b = (1 + 3 / 4) / (5 + 3)
    assert math.exp(lm.score((), "b")[0]) == pytest.approx(p_b, abs=1e-6)
    _, after_a = lm.score(lm.start, "a")
    # a is followed by b and </s>, once each
    assert math.exp(lm.score(after_a, "b")[0]) == pytest.approx((1 + 2 * p_b) / 4, abs=1e-6)


def test_text_is_deterministic_whatever_the_order_of_sentences() -> None:
    assert train_witten_bell(reversed(SENTENCES)) == ARPA


def test_unknown_words_have_a_probability_and_reset_the_history() -> None:
    logp, state = LM.score(LM.start, "cappuccino")
    assert -20 < logp < 0 and state == ()
    assert not LM.is_known("cappuccino") and LM.is_known("latte")


def test_perplexity_tells_likely_text_from_unlikely() -> None:
    likely, unlikely = LM.perplexity(["can i have a latte please"]), LM.perplexity(["go a can two"])
    assert 1 < likely < 5 < unlikely
    one = LM.sentence_logp(["a", "latte"])
    assert LM.perplexity(["a latte"]) == pytest.approx(math.exp(-one / 3))


def test_a_state_holds_only_what_matters() -> None:
    _, state = LM.score(LM.start, "go")
    assert len(state) == 1  # "<s> go" was never seen
    _, state = LM.score(LM.start, "can")
    assert len(state) == 2


def test_kenlm_gives_equal_scores(tmp_path: Path) -> None:
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    (tmp_path / "lm.arpa").write_text(ARPA, encoding="utf-8")
    dictionary = Dictionary([*LM.vocabulary, "cappuccino"])
    peer = KenLM(str(tmp_path / "lm.arpa"), dictionary)
    for sentence in [*SENTENCES, "two coffees please can", "a cappuccino please", "go go go go"]:
        theirs, ours = peer.start(False), LM.start
        for word in sentence.split():
            theirs, expected = peer.score(theirs, dictionary.get_index(word))
            found, ours = LM.score(ours, word)
            assert found / math.log(10) == pytest.approx(expected, abs=1e-5), (sentence, word)
        assert LM.score_end(ours) / math.log(10) == pytest.approx(peer.finish(theirs)[1], abs=1e-5)


def test_arpa_of_another_tool_loads() -> None:
    text = (
        "a preamble\n\n\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1.0 <unk>\n-99 <s> -0.3\n"
        "-0.5 </s>\n-0.2 hi -0.1\n\n\\2-grams:\n-0.05 <s> hi\n\n\\end\\\n"
    )
    lm = ArpaModel.from_text(text)
    logp, state = lm.score(lm.start, "hi")
    assert logp == pytest.approx(-0.05 * math.log(10))
    assert lm.score_end(state) == pytest.approx(-0.6 * math.log(10))


def _edited(old: str, new: str) -> str:
    assert old in ARPA
    return ARPA.replace(old, new, 1)


LINES = ARPA.splitlines()
FIRST = LINES[6]  # the first unigram


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected \\data\\"),
        ("\\data\\\n\\1-grams:\n", "line 2: expected `ngram 1=<count>`"),
        (_edited("ngram 2=", "ngram 3="), "line 3: expected `ngram 2=<count>`"),
        (_edited("ngram 1=", "ngram 1=9"), "but the header says"),
        (_edited(FIRST, "x" + FIRST), "line 7: 'x-"),
        (_edited(FIRST, FIRST.replace("-", "", 1)), "is not a log10 probability"),
        (_edited(FIRST, "-1"), "line 7: expected log10 p, 1 words"),
        (_edited("\tlatte\t", "\tcan\t"), "'can' is given twice"),
        (_edited("\ta latte\t", "\ta mocha\t"), "word 'mocha' has no unigram"),
        (_edited("\\end\\", ""), "the file ends"),
        (_edited("\\3-grams:", "\\4-grams:"), "expected \\3-grams:"),
    ],
)
def test_a_bad_arpa_file_is_named_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(LanguageModelError) as caught:
        ArpaModel.from_text(text, name="x.arpa")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("x.arpa line ")


def test_files_and_texts_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="not found"):
        ArpaModel.load(tmp_path / "lm.arpa")
    with pytest.raises(LanguageModelError, match="no sentence"):
        train_witten_bell([])
    with pytest.raises(LanguageModelError, match="marker <unk>"):
        train_witten_bell(["a <unk> b"])


def test_sections_are_sorted_and_contexts_are_present() -> None:
    trigrams = [line.split("\t")[1] for line in LINES if line.count(" ") == 2 and "\t" in line]
    assert all(before.split() < after.split() for before, after in pairwise(trigrams))
    grams = {line.split("\t")[1] for line in LINES if "\t" in line}
    assert all(" ".join(gram.split()[:-1]) in grams for gram in trigrams)
