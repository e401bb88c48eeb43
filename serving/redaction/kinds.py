"""What a run of digits and letters is: card, phone number, date of birth, or nothing personal."""

from collections.abc import Sequence

from serving.redaction import lexicon
from serving.redaction.runs import Run
from serving.redaction.tokens import NUMERIC, Shape, Token

_CUE_TOKENS = 8  # how far before a run its announcement may stand
_CARD_DIGITS = 12  # the shortest card; longer runs are hidden whether or not the check digit fits
_QUANTITY_DIGITS = 6  # nobody counts further
_PHONE_DIGITS = range(7, 12)
_IBAN_CHARS = range(15, 35)
_BIRTH_YEARS = range(1900, 2013)


def kinds_of(run: Run, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Every kind that the run may be, the likeliest first; empty for what is not personal."""
    digits = run.digits
    quantity = is_quantity(run, tokens)
    cue = cue_of(run, tokens)
    found: list[str] = []
    if _is_iban(run, cue):
        found.append("iban")
    if is_birth_date(run, tokens):
        found.append("dob")
    if cue in ("phone", "card", "cvv", "ssn", "account") and not quantity:
        found += _announced(cue, run)
    dated = len(digits) >= 2 or run.month
    if cue in ("expiry", "dob") and dated and not _counts(run, tokens):
        found.append(cue)
    if len(digits) >= _CARD_DIGITS:
        found.append("card")
    elif not quantity:
        found += _by_length(run, tokens)
    if run.letters:
        found += _letters(run, tokens)
    if run.in_a_row >= 3 and not quantity:
        found.append("number")
    if digits:
        found.append("any_number")
    return tuple(dict.fromkeys(found))


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number fits."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return bool(doubled) and sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def iban_holds(text: str) -> bool:
    """ISO 13616: country, check digits, and modulo 97 of it all."""
    if len(text) not in _IBAN_CHARS or not (text[:2].isalpha() and text[2:4].isdigit()):
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def is_quantity(run: Run, tokens: Sequence[Token]) -> bool:
    """A price, a time, an amount, a year: short, and spoken as one number or with its unit."""
    if len(run.digits) > _QUANTITY_DIGITS:
        return False
    decimal = any(token.text == "point" for token in tokens[run.start : run.end])
    return decimal or run.cardinal or _counts(run, tokens)


def cue_of(run: Run, tokens: Sequence[Token]) -> str:
    """The nearest announcement before the run, as long as no other number stands between."""
    for at in range(run.start - 1, max(-1, run.start - 1 - _CUE_TOKENS), -1):
        token = tokens[at]
        if token.shape in NUMERIC or token.shape is Shape.MASK:
            return ""
        if token.text == "plus":
            return "phone"
        if token.text == "security" and at and tokens[at - 1].text == "social":
            return "ssn"
        if token.text in lexicon.KIND_OF_CUE:
            return lexicon.KIND_OF_CUE[token.text]
    return ""


def is_birth_date(run: Run, tokens: Sequence[Token]) -> bool:
    """A whole date of a year in which somebody who speaks may be born."""
    for token in tokens[run.start : run.end]:
        if token.shape is Shape.DATE:
            return any(int(year) in _BIRTH_YEARS for year in (token.chars[-4:], token.chars[:4]))
    digits = run.digits
    return run.month and len(digits) in (5, 6) and int(digits[-4:]) in _BIRTH_YEARS


def _counts(run: Run, tokens: Sequence[Token]) -> bool:
    """Whether a unit follows: people, dollars, p m."""
    if len(run.digits) > _QUANTITY_DIGITS or run.end >= len(tokens):
        return False
    return tokens[run.end].text in lexicon.UNITS_OF_QUANTITY


def _announced(cue: str, run: Run) -> list[str]:
    length = len(run.digits)
    if cue == "phone":
        return ["phone"] if length >= 5 else []
    if cue == "account":
        return ["account"] if length >= 3 or (length and len(run.chars) >= 4) else []
    return [cue] if length >= 3 else []


def _by_length(run: Run, tokens: Sequence[Token]) -> list[str]:
    length = len(run.digits)
    dated = run.month or any(t.shape is Shape.DATE for t in tokens[run.start : run.end])
    if dated and length <= 8:
        return []
    if length == 9:
        return ["ssn", "phone"]
    if length in _PHONE_DIGITS:
        return ["phone"]
    return ["account"] if len(run.letters) >= 2 and length >= 4 else []


def _is_iban(run: Run, cue: str) -> bool:
    if cue == "iban" and len(run.digits) >= 2:
        return True
    if iban_holds(run.chars):
        return True
    return run.chars[:2].isalpha() and len(run.digits) >= 10 and len(run.chars) in _IBAN_CHARS


def _letters(run: Run, tokens: Sequence[Token]) -> list[str]:
    before = {token.text for token in tokens[max(0, run.start - 4) : run.start]}
    cued = bool(before & lexicon.SPELLING)
    letters = run.letters
    known = letters in lexicon.ABBREVIATIONS or (
        letters[0] in "ai" and letters[1:] in lexicon.ABBREVIATIONS
    )
    if (len(letters) >= 3 and not known) or (cued and len(letters) >= 2):
        return ["spelled"]
    return []
