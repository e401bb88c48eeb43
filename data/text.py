"""What a transcript is: one alphabet, one way to write down what was said.

``normalise`` is used for training targets, for scoring every engine, and for nothing else; what
the user typed is kept beside it. It is idempotent, and its version travels with every manifest.
"""

import re
import unicodedata
from collections.abc import Callable

from data import numerals

NORMALISER_VERSION = "en-1"
ALPHABET = "abcdefghijklmnopqrstuvwxyz' "

_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ＇`´ʹ‛′"), "'")
_DASHES = dict.fromkeys(map(ord, "−‐‑‒﹣－"), "-")
# letters that Unicode does not decompose
_LETTERS = {
    ord(letter): plain
    for letter, plain in {
        "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l",
        "ħ": "h", "ı": "i", "ŋ": "ng", "ŧ": "t", "ĸ": "k",
    }.items()
}  # fmt: skip

_AMOUNT = r"(?<!\d)(?:\d{1,3}(?:,\d{3}){1,8}(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_SCALE = r"(?:\s?(thousand|million|billion|trillion)\b|(k|m|bn)\b)?"
_SHORT_SCALES = {"k": "thousand", "m": "million", "bn": "billion"}
_SYMBOLS = re.escape(numerals.CURRENCY_SYMBOLS)

_HALF_DAY = re.compile(r"\s*[ap]m\b")

_Reader = Callable[[re.Match[str]], str]


def _read_time(match: re.Match[str]) -> str:
    half_day_named = _HALF_DAY.match(match.string, match.end()) is not None
    return numerals.clock(int(match[1]), int(match[2]), half_day_named=half_day_named)


def _read_money(match: re.Match[str]) -> str:
    scale = match[4] or _SHORT_SCALES.get(match[5] or "", "")
    sign = "minus " if match[1] else ""
    return sign + numerals.money(match[2], match[3], scale)


# Applied in this order; each rule sees what the ones before it left.
_RULES: tuple[tuple[re.Pattern[str], _Reader], ...] = (
    (re.compile(r"\b([ap])\.m\b\.?"), lambda m: f"{m[1]}m"),
    (re.compile(r"(?<![\d:.,])([01]?\d|2[0-3]):([0-5]\d)(?![\d:])"), _read_time),
    (re.compile(rf"((?<![\w])-)?([{_SYMBOLS}])\s?({_AMOUNT}){_SCALE}"), _read_money),
    (re.compile(rf"({_AMOUNT})\s?([{_SYMBOLS}])"), lambda m: numerals.money(m[2], m[1])),
    (re.compile(r"(?<!\d)(\d{1,2})⁄(\d{1,2})(?!\d)"), lambda m: _read_fraction(m)),
    (re.compile(rf"({_AMOUNT})\s?°"), lambda m: f"{numerals.quantity(m[1])} degrees "),
    (re.compile(rf"((?<!\w)-)?({_AMOUNT})\s?%"), lambda m: f"{_signed(m)} percent "),
    (
        re.compile(r"(?<!\d)(\d{1,3}(?:,\d{3}){1,8}|\d+)(?:st|nd|rd|th)\b"),
        lambda m: numerals.ordinal(m[1]),
    ),
    (re.compile(r"(?<!\d)(\d+0)'?s\b"), lambda m: numerals.plural(numerals.bare_number(m[1]))),
    # telephone numbers: +44 20 7946 0958, 555-1234, (212) 555-1234 and the like
    (re.compile(r"\+(\d[\d\s()-]{5,}\d)"), lambda m: f"plus {numerals.digits(m[1])}"),
    (
        re.compile(r"(?<![\d-])(?:\(?\d{3}\)?[\s-])?\d{3}-\d{4}(?![\d-])"),
        lambda m: numerals.digits(m[0]),
    ),
    (  # versions and addresses: 1.2.3
        re.compile(r"(?<!\d)\d+(?:\.\d+){2,}"),
        lambda m: " point ".join(numerals.quantity(part) for part in m[0].split(".")),
    ),
    (re.compile(rf"((?<!\w)-)({_AMOUNT})"), lambda m: _signed(m)),
    (re.compile(_AMOUNT), lambda m: numerals.bare_number(m[0])),
    (re.compile(r"&"), lambda _: "and"),
    (re.compile(r"%"), lambda _: "percent"),
)
_NUMERIC = re.compile(rf"[\d&%{_SYMBOLS}]|\.m")
_STRAY_APOSTROPHE = re.compile(r"(?<![a-z])'|'(?![a-z])")
_OUTSIDE = re.compile(r"[^a-z']+")


def normalise(text: str) -> str:
    """``text`` as spoken, in ``ALPHABET``, words parted by single blanks.

    Compatibility forms (NFKC) and diacritics are folded, case is lowered, apostrophes stay inside
    words only. Numerals are spoken in full: cardinals up to trillions, ``-5`` (minus five),
    ``3.14``, ``1st``, ``5%``, ``$5.50``, ``10:30``, decades (``1990s``). A bare four-digit number
    from 1100 to 2099 is read like a year (``1984`` nineteen eighty four, ``1500`` fifteen hundred);
    write ``1,984`` for the cardinal. Runs that begin with zero, telephone numbers and numbers of a
    quadrillion and more are read digit by digit. ``&`` is "and"; all else is a blank.
    """
    folded = _fold(text)
    if _NUMERIC.search(folded):
        for pattern, reader in _RULES:
            folded = pattern.sub(_spaced(reader), folded)
    folded = _STRAY_APOSTROPHE.sub(" ", folded)
    return _OUTSIDE.sub(" ", folded).strip()


def foreign_characters(text: str) -> tuple[str, ...]:
    """The letters and numerals of ``text`` that ``normalise`` would drop, sorted: a sign that the
    transcript is not in the language it claims."""
    return tuple(
        sorted(
            {
                character
                for character in _fold(text)
                if not character.isascii() and unicodedata.category(character)[0] in "LN"
            }
        )
    )


def _spaced(reader: _Reader) -> _Reader:
    return lambda match: f" {reader(match)} "


def _fold(text: str) -> str:
    apart = "".join(_set_apart(character) for character in text)
    lowered = unicodedata.normalize("NFKC", apart).lower()
    plain = lowered.translate(_APOSTROPHES).translate(_DASHES).translate(_LETTERS)
    decomposed = unicodedata.normalize("NFKD", plain)
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in decomposed
        if not unicodedata.combining(character)
    )


def _set_apart(character: str) -> str:
    """NFKC would glue ``2½`` to ``21/2`` and ``10²`` to ``102``: part them first."""
    if character.isascii() or not character.isnumeric() or character.isdecimal():
        return character
    return f" {character} "


def _read_fraction(match: re.Match[str]) -> str:
    numerator, denominator = int(match[1]), int(match[2])
    if denominator < 2:
        return f"{numerals.quantity(match[1])} {numerals.quantity(match[2])}"
    return numerals.fraction(numerator, denominator)


def _signed(match: re.Match[str]) -> str:
    return ("minus " if match[1] else "") + numerals.quantity(match[2])
