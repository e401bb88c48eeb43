import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import numerals
from data.text import ALPHABET, foreign_characters, normalise


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("", ""),
        ("  Hello,   WORLD! ", "hello world"),
        ("Don't stop: debtors' 'quote' rock’n’roll", "don't stop debtors quote rock'n'roll"),
        ("Café naïve Straße Ærø ﬁne Ｆｕｌｌ", "cafe naive strasse aero fine full"),
        ("R&B & blues", "r and b and blues"),
        ("0", "zero"),
        ("105 people", "one hundred five people"),
        ("1,000,000", "one million"),
        ("999999999999999", "nine hundred ninety nine trillion nine hundred ninety nine billion "
         "nine hundred ninety nine million nine hundred ninety nine thousand "
         "nine hundred ninety nine"),
        ("-5 degrees", "minus five degrees"),
        ("−3.5", "minus three point five"),
        ("10-20", "ten twenty"),
        ("3.14", "three point one four"),
        ("0.05", "zero point zero five"),
        (".5", "zero point five"),
        ("1st 2nd 3rd 12th 21st 100th", "first second third twelfth twenty first one hundredth"),
        ("1984 1905 1900 2000 2005 2019", "nineteen eighty four nineteen oh five nineteen hundred "
         "two thousand two thousand five twenty nineteen"),
        ("1,984", "one thousand nine hundred eighty four"),
        ("the 1990s and the '80s", "the nineteen nineties and the eighties"),
        ("5% 12.5 %", "five percent twelve point five percent"),
        ("$5", "five dollars"),
        ("$1", "one dollar"),
        ("$5.50", "five dollars and fifty cents"),
        ("$0.01", "one cent"),
        ("$2.5 million", "two point five million dollars"),
        ("£1.01", "one pound and one penny"),
        ("€3 or 3€", "three euros or three euros"),
        ("$1984", "one thousand nine hundred eighty four dollars"),
        ("10:30", "ten thirty"),
        ("10:05 a.m.", "ten oh five am"),
        ("7:00", "seven o'clock"),
        ("7:00 pm", "seven pm"),
        ("18:00", "eighteen hundred"),
        ("007", "zero zero seven"),
        ("call 0207 946", "call zero two zero seven nine hundred forty six"),
        ("555-1234", "five five five one two three four"),
        ("+44 20 7946", "plus four four two zero seven nine four six"),
        ("12345678901234567", "one two three four five six seven eight nine zero one two three "
         "four five six seven"),
        ("½ and ¾", "one half and three quarters"),
        ("v1.2.3", "v one point two point three"),
        ("b2b 5pm", "b two b five pm"),
        ("٣", "three"),
        ("日本", ""),
    ],
)  # fmt: skip
def test_writing_becomes_speech(written: str, spoken: str) -> None:
    assert normalise(written) == spoken


_TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="0123456789.,:%$£€-+&' amkthsd½°/()", max_size=30),
)


@given(_TEXTS)
def test_normalise_is_idempotent_and_stays_in_the_alphabet(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert set(once) <= set(ALPHABET)
    assert once == " ".join(once.split())
    assert not re.search(r"(?<![a-z])'|'(?![a-z])", once)


@given(st.lists(_TEXTS, max_size=4))
def test_the_alphabet_matters_not_the_surrounding_blanks(texts: list[str]) -> None:
    joined = "\n \t".join(texts)
    assert normalise(f"  {joined} ") == normalise(joined)


def _value(words: str) -> int:
    """Reads a cardinal back, independently of how it was spoken."""
    total = group = 0
    for word in words.split():
        if word == "hundred":
            group *= 100
        elif word in numerals._SCALES:
            total += group * 1000 ** numerals._SCALES.index(word)
            group = 0
        elif word in numerals._TENS:
            group += 10 * numerals._TENS.index(word)
        else:
            group += numerals._SMALL.index(word)
    return total + group


@given(st.integers(min_value=0, max_value=numerals.CARDINAL_LIMIT - 1))
def test_cardinals_read_back_to_the_same_number(number: int) -> None:
    assert _value(numerals.cardinal(number)) == number


@given(st.integers(min_value=0, max_value=10**9))
def test_only_the_last_word_of_an_ordinal_differs(number: int) -> None:
    ordinal, cardinal = numerals.ordinal(str(number)).split(), numerals.cardinal(number).split()
    assert ordinal[:-1] == cardinal[:-1]
    assert ordinal[-1] != cardinal[-1]


def test_foreign_characters_are_named_and_folded_ones_are_not() -> None:
    assert foreign_characters("Café ½ straße — 日本 я") == ("я", "日", "本")
    assert foreign_characters("plain text, 5%!") == ()


def test_very_long_digit_runs_are_read_not_refused() -> None:
    assert normalise("9" * 6000).split() == ["nine"] * 6000
    assert normalise("9" * 6000 + "th").split() == ["nine"] * 6000
