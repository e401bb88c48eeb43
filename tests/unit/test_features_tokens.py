"""The token table: its file, its order, and its complaints."""

from pathlib import Path

import pytest

from data.text import ALPHABET
from features.tokens import TokenError, TokenTable

TABLE = TokenTable.from_alphabet(ALPHABET)


def test_order_and_file_are_those_of_sherpa(tmp_path: Path) -> None:
    TABLE.to_file(tmp_path / "tokens.txt")
    lines = (tmp_path / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:4] == ["<blk> 0", "▁ 1", "' 2", "a 3"]
    assert lines[-1] == "z 28" and TABLE.size == 29


def test_file_round_trip_keeps_table_and_digest(tmp_path: Path) -> None:
    TABLE.to_file(tmp_path / "tokens.txt")
    found = TokenTable.from_file(tmp_path / "tokens.txt")
    assert found == TABLE
    assert found.digest == TABLE.digest


def test_text_round_trip_and_blanks_vanish() -> None:
    tokens = TABLE.encode("don't stop")
    assert 0 not in tokens
    assert TABLE.decode([0, *tokens, 0]) == "don't stop"


def test_lines_may_come_in_any_order() -> None:
    assert TokenTable.from_text("a 2\n<blk> 0\n▁ 1\n") == TokenTable.from_alphabet("a")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<blk> 0\n▁ 1\na\n", "line 3: expected `symbol id`"),
        ("<blk> 0\n▁ 1\na b c\n", "line 3: expected `symbol id`"),
        ("<blk> 0\n▁ 1\na two\n", "line 3: 'two' is not a token id"),
        ("<blk> 0\n▁ 1\na -2\n", "line 3: '-2' is not a token id"),
        ("<blk> 0\n▁ 1\na 1\n", "line 3: id 1 is given twice"),
        ("<blk> 0\n▁ 1\na 3\n", "2 is missing"),
        ("<blk> 0\n▁ 1\na 2\na 3\n", "symbol 'a' is given twice"),
        ("a 0\n▁ 1\n", "token 0 must be <blk>"),
        ("<blk> 0\na 1\n", "no word separator"),
        ("<blk> 0\n▁ 1\nab 2\n", "not one visible character"),
        ("", "token 0 must be <blk>"),
    ],
)
def test_a_bad_file_is_named_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(TokenError) as caught:
        TokenTable.from_text(text, name="x/tokens.txt")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("x/tokens.txt")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match="not found"):
        TokenTable.from_file(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"<blk> 0\n\xe9 1\n")
    with pytest.raises(TokenError, match="not UTF-8 at byte 8"):
        TokenTable.from_file(tmp_path / "latin.txt")


def test_foreign_character_and_foreign_id_are_named() -> None:
    with pytest.raises(TokenError, match="'é'"):
        TABLE.encode("café")
    with pytest.raises(TokenError, match="29 is outside"):
        TABLE.decode([29])
