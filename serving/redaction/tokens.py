"""One spoken or written word at a time: is it a digit, a letter, a link between them, or a word?

What a word is depends on its neighbours (`a`, `oh`, `double`, `may`, `one`): `lex` reads words
alone first and then lets neighbours decide. No word is ever changed here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from serving.redaction import lexicon


class Shape(Enum):
    """What a word does in a number, a spelling, a date or an address."""

    DIGIT = auto()
    TIMES = auto()  # double, triple
    SCALE = auto()  # hundred, thousand
    ORDINAL = auto()
    MONTH = auto()
    DATE = auto()  # written: 07/04/1982
    LETTER = auto()
    ALNUM = auto()  # written: de89
    MAIL = auto()  # written: name@example.com
    LINK = auto()  # dash, dot, and
    FILLER = auto()
    SOFT = auto()  # to, for: a digit between digits
    QUANTITY = auto()  # written: $4.50, 10:30
    MASK = auto()  # what redaction left
    WORD = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A word as redaction sees it."""

    shape: Shape
    text: str  # folded, without punctuation around it
    chars: str = ""  # the digits or letters that it stands for
    written: bool = False  # in figures


CONTENT = frozenset(
    {Shape.DIGIT, Shape.TIMES, Shape.SCALE, Shape.ORDINAL, Shape.MONTH, Shape.DATE, Shape.LETTER,
     Shape.ALNUM}
)  # fmt: skip
_BETWEEN = (Shape.LINK, Shape.FILLER)
NUMERIC = CONTENT - {Shape.LETTER}
_EDGES = ".,;:!?\"'()[]{}<>…“”‘’-–—"
_MASK = re.compile(r"\[[A-Z_]+\]\W*")
_MAIL = re.compile(r"[^\s@]+@[^\s@]+\.[a-z]{2,}")
_DATE = re.compile(r"\d{1,4}([/.-])\d{1,2}\1\d{2,4}")
_QUANTITY = re.compile(
    r"[-+]?[$€£¥]\d[\d,.]*(k|m|bn)?|\d[\d,.]*([$€£¥%°]|am|pm|k|bn|ml|kg|mg|g|km|cm|mm|gb|mb|h|min|s|x|th)"
    r"|\d{1,3}(,\d{3})+(\.\d+)?|\d{1,4}\.\d{1,2}|\d{1,2}:\d{2}([ap]m)?|\d+(st|nd|rd)"
)
_DIGITS = re.compile(r"\+?[(]?\d[\d()./-]*")
_SPELLED = re.compile(r"([a-z][.-]){1,}[a-z]\.?")
_ALNUM = re.compile(r"(?=.*\d)(?=.*[a-z])[a-z\d]{2,}")
_PLURALS = {
    f"{word}s" if word != "six" else "sixes": digit for word, digit in lexicon.UNITS.items()
}


def lex(words: Sequence[str]) -> list[Token]:
    """A token per word."""
    tokens = [_alone(word) for word in words]
    _join_letters(tokens)
    _explained_letters(tokens)
    for settle in (_zeros, _pronouns, _scales, _multiples, _dates):
        for at in range(len(tokens)):
            settle(tokens, at)
    return tokens


def _alone(word: str) -> Token:
    if _MASK.fullmatch(word.strip()):
        return Token(Shape.MASK, "")
    folded = word.strip().casefold()
    text = folded.strip(_EDGES)
    if _MAIL.fullmatch(text):
        return Token(Shape.MAIL, text, text, written=True)
    if any(character.isdigit() for character in text):
        return _figures(text)
    if len(text) == 1 and text.isalpha():
        return Token(Shape.LETTER, text, text)
    if _SPELLED.fullmatch(folded.rstrip(",;:!?")):
        return Token(Shape.LETTER, text, re.sub(r"[.-]", "", text), written=True)
    return _spoken(text)


def _figures(text: str) -> Token:
    bare = text.strip("$€£¥%°") if _QUANTITY.fullmatch(text) else ""
    if bare:
        return Token(Shape.QUANTITY, text, re.sub(r"\D", "", text), written=True)
    if _DATE.fullmatch(text):
        return Token(Shape.DATE, text, re.sub(r"\D", "", text), written=True)
    if _DIGITS.fullmatch(text):
        return Token(Shape.DIGIT, text, re.sub(r"\D", "", text), written=True)
    plain = re.sub(r"[-./]", "", text)
    if plain.isascii() and _ALNUM.fullmatch(plain):
        return Token(Shape.ALNUM, text, plain, written=True)
    return Token(Shape.QUANTITY, text, re.sub(r"\D", "", text), written=True)


def _spoken(text: str) -> Token:
    for table in (lexicon.UNITS, _PLURALS, lexicon.TEENS, lexicon.TENS):
        if text in table:
            return Token(Shape.DIGIT, text, table[text])
    tens, _, unit = text.partition("-")
    if tens in lexicon.TENS and unit in lexicon.UNITS:
        return Token(Shape.DIGIT, text, lexicon.TENS[tens][0] + lexicon.UNITS[unit])
    if text in lexicon.ORDINALS:
        return Token(Shape.ORDINAL, text, lexicon.ORDINALS[text])
    for names, shape in (
        (lexicon.SCALES, Shape.SCALE), (lexicon.TIMES, Shape.TIMES), (lexicon.MONTHS, Shape.MONTH),
        (lexicon.LINKS, Shape.LINK), (lexicon.FILLERS, Shape.FILLER), (lexicon.SOFT_DIGITS, Shape.SOFT),
    ):  # fmt: skip
        if text in names:
            return Token(shape, text)
    return Token(Shape.WORD, text)


def _join_letters(tokens: list[Token]) -> None:
    """Letters in a row: a spelling, an announcement (`s s n`), half of a day, or no letters."""
    at = 0
    while at < len(tokens):
        end = at
        while end < len(tokens) and _may_spell(tokens[end]):
            end += 1
        if end > at:
            _settle_letters(tokens, at, end)
        at = max(end, at + 1)


def _may_spell(token: Token) -> bool:
    if token.shape is Shape.LETTER or token.text in lexicon.ZERO_LETTERS:
        return True
    return token.text in lexicon.NATO or token.text in lexicon.LETTER_NAMES


def _settle_letters(tokens: list[Token], at: int, end: int) -> None:
    run = range(at, end)
    texts = [tokens[index].text for index in run]
    after_digit = at > 0 and tokens[at - 1].shape in (
        Shape.DIGIT,
        Shape.QUANTITY,
        Shape.MASK,
    )
    if after_digit and texts[:2] in (["a", "m"], ["p", "m"]):
        for index, half in ((at, texts[0] + "m"), (at + 1, texts[0] + "m")):
            tokens[index] = Token(Shape.WORD, half)
        return
    if "".join(texts) in lexicon.SPELLED_CUES:
        for index in run:
            tokens[index] = Token(Shape.WORD, "".join(texts) if index == end - 1 else "")
        return
    hard = any((len(text) == 1 and text not in "aio") or tokens[index].written
               for index, text in zip(run, texts, strict=True))  # fmt: skip
    nato = sum(text in lexicon.NATO for text in texts)
    goes_on = end == len(tokens) and (nato >= 2 or len(texts[-1]) == 1)
    spelled = hard or nato >= 3 or goes_on
    for index, text in zip(run, texts, strict=True):
        chars = (
            lexicon.NATO.get(text)
            or lexicon.LETTER_NAMES.get(text)
            or tokens[index].chars
            or text[0]
        )
        if spelled:
            tokens[index] = Token(Shape.LETTER, text, chars, tokens[index].written)
        elif text not in lexicon.ZERO_LETTERS:
            tokens[index] = Token(Shape.WORD, text)


def _explained_letters(tokens: list[Token]) -> None:
    """`b as in boy` and `b for bravo` are one letter each."""
    for at, token in enumerate(tokens):
        if token.shape is not Shape.LETTER:
            continue
        said = [other.text for other in tokens[at + 1 : at + 4]]
        length = 0
        if said[:1] == ["as"] and said[1:2] in (["in"], []):
            length = 3
        elif said[:1] in (["for"], ["like"]) and said[1:2] and said[1].startswith(token.chars):
            length = 2
        for index in range(at + 1, min(at + 1 + length, len(tokens))):
            tokens[index] = Token(Shape.LETTER, tokens[index].text)


def _near(tokens: list[Token], at: int, shapes: set[Shape], *, links: int) -> bool:
    """Whether a token of one of the shapes stands beside, over at most ``links`` other tokens."""
    for step in (-1, 1):
        index, left = at + step, links
        while 0 <= index < len(tokens) and left and tokens[index].shape in _BETWEEN:
            index, left = index + step, left - 1
        if 0 <= index < len(tokens) and tokens[index].shape in shapes:
            return True
    return False


def _zeros(tokens: list[Token], at: int) -> None:
    """`oh` beside a digit is zero; the last word of all may still become one."""
    token = tokens[at]
    if token.text not in lexicon.ZERO_LETTERS:
        return
    digit = _near(tokens, at, {Shape.DIGIT, Shape.TIMES}, links=3) or at == len(tokens) - 1
    if digit or (at + 1 < len(tokens) and tokens[at + 1].text in lexicon.ZERO_LETTERS):
        tokens[at] = Token(Shape.DIGIT, token.text, "0")
    elif token.shape is not Shape.LETTER:
        tokens[at] = Token(Shape.WORD, token.text)


def _pronouns(tokens: list[Token], at: int) -> None:
    """`this one` counts nothing, unless digits follow."""
    if tokens[at].text != "one" or at == 0 or tokens[at - 1].text not in lexicon.DETERMINERS:
        return
    following = tokens[at + 1].shape if at + 1 < len(tokens) else Shape.WORD
    if following not in NUMERIC:
        tokens[at] = Token(Shape.WORD, "one")


def _scales(tokens: list[Token], at: int) -> None:
    if tokens[at].shape is Shape.SCALE and (
        at == 0 or tokens[at - 1].shape not in (Shape.DIGIT, Shape.SCALE)
    ):
        tokens[at] = Token(Shape.WORD, tokens[at].text)


def _multiples(tokens: list[Token], at: int) -> None:
    """`double` counts before a digit or a letter, and at the end of a run that goes on."""
    if tokens[at].shape is not Shape.TIMES:
        return
    follows = at + 1 < len(tokens) and tokens[at + 1].shape in (Shape.DIGIT, Shape.LETTER)
    before = at - 1
    while before >= 0 and tokens[before].shape in _BETWEEN:
        before -= 1
    goes_on = at + 1 == len(tokens) and before >= 0 and tokens[before].shape in CONTENT
    if not follows and not goes_on:
        tokens[at] = Token(Shape.WORD, tokens[at].text)


def _dates(tokens: list[Token], at: int) -> None:
    """Months count beside a number, ordinals beside a month or after a birth."""
    token = tokens[at]
    if token.shape is Shape.MONTH:
        beside = {Shape.DIGIT, Shape.ORDINAL, Shape.DATE}
        if not _near(tokens, at, beside, links=2) and at != len(tokens) - 1:
            tokens[at] = Token(Shape.WORD, token.text)
    elif token.shape is Shape.ORDINAL:
        before = {other.text for other in tokens[max(0, at - 6) : at]}
        born = any(lexicon.KIND_OF_CUE.get(text) == "dob" for text in before)
        if not born and not _near(tokens, at, {Shape.MONTH}, links=2):
            tokens[at] = Token(Shape.WORD, token.text)
