"""The closed vocabulary and its prefix tree."""

from pathlib import Path

import pytest

from features.language_model import ArpaModel, train_witten_bell
from features.lexicon import Lexicon, LexiconError
from features.tokens import TokenError, TokenTable

TABLE = TokenTable.from_alphabet("acdort")


def test_vocabulary_of_a_text_is_sorted_and_survives_a_file(tmp_path: Path) -> None:
    lexicon = Lexicon.from_sentences(["to cart", "cat to", "car"])
    assert lexicon.words == ("car", "cart", "cat", "to")
    lexicon.to_file(tmp_path / "lexicon.txt")
    assert Lexicon.from_file(tmp_path / "lexicon.txt") == lexicon


def test_tree_leads_to_words_and_nowhere_else() -> None:
    trie = Lexicon.from_words(["car", "cart", "cat"]).trie(TABLE)
    node = 0
    for token in TABLE.encode("car"):
        node = trie.children[node][token]
    assert trie.is_word[node]
    assert trie.words_below[node] == ["car", "cart"]
    assert list(trie.children[node]) == TABLE.encode("t")


def test_the_tree_is_built_once() -> None:
    lexicon = Lexicon.from_words(["cat"])
    assert lexicon.trie(TABLE) is lexicon.trie(TABLE)


def test_lookahead_bounds_every_word_below() -> None:
    lm = ArpaModel.from_text(train_witten_bell(["to cart", "cat to", "car cart", "to cat"]))
    trie = Lexicon.from_words(lm.vocabulary).trie(TABLE)
    _, state = lm.score(lm.start, "to")
    for node, words in enumerate(trie.words_below):
        best = max(lm.score(state, word)[0] for word in words)
        assert trie.lookahead(lm).guess(state, node) == best


def test_bad_lexicons_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="not found"):
        Lexicon.from_file(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(LexiconError, match="no word"):
        Lexicon.from_file(tmp_path / "empty.txt")
    (tmp_path / "two.txt").write_text("cat\nto cart\n")
    with pytest.raises(LexiconError, match="'to cart'"):
        Lexicon.from_file(tmp_path / "two.txt")
    with pytest.raises(TokenError, match="'x'"):
        Lexicon.from_words(["axt"]).trie(TABLE)
