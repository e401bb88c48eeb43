"""Numbers spoken in English words: cardinals, ordinals, years, decimals, money, clock times.

The reading is the American one without "and" inside a number ("one hundred five"); money keeps
its "and" between units ("five dollars and ten cents"), as people say it.
"""

_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ("", "thousand", "million", "billion", "trillion")
_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
# symbol -> (one main unit, many, one hundredth, many hundredths)
_MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
}
_FRACTIONS = {2: ("half", "halves"), 4: ("quarter", "quarters")}

CARDINAL_LIMIT = 1000 ** len(_SCALES)
"""From here on (a quadrillion) a number is read digit by digit."""

CURRENCY_SYMBOLS = "".join(_MONEY)


def digits(text: str) -> str:
    """Each decimal digit of ``text`` on its own: ``007`` -> ``zero zero seven``."""
    return " ".join(_SMALL[int(character)] for character in text if character.isdecimal())


def cardinal(number: int) -> str:
    """``1205`` -> ``one thousand two hundred five``; negative numbers begin with ``minus``."""
    if number < 0:
        return "minus " + cardinal(-number)
    if number >= CARDINAL_LIMIT:
        return digits(str(number))
    if number == 0:
        return _SMALL[0]
    words: list[str] = []
    for power in range(len(_SCALES) - 1, -1, -1):
        group = number // 1000**power % 1000
        if group:
            words += [_below_thousand(group), _SCALES[power]]
    return " ".join(word for word in words if word)


def ordinal(text: str) -> str:
    """``21`` -> ``twenty first``; a code (``007th``) is left to its digits."""
    if _is_code(text):
        return digits(text)
    *head, last = cardinal(int(text.replace(",", ""))).split()
    if last in _IRREGULAR_ORDINALS:
        last = _IRREGULAR_ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return " ".join([*head, last])


def year(number: int) -> str:
    """Pairs, as years are said: 1984 nineteen eighty four, 1905 nineteen oh five, 2005 two thousand
    five, 1500 fifteen hundred, 2019 twenty nineteen."""
    century, rest = divmod(number, 100)
    if number % 1000 < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    tail = f"oh {cardinal(rest)}" if rest < 10 else cardinal(rest)
    return f"{cardinal(century)} {tail}"


def plural(words: str) -> str:
    """``nineteen nineties`` from ``nineteen ninety``; ``sixes`` from ``six``."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("x", "s")) else "s")


def quantity(text: str) -> str:
    """A counted amount: ``1,204`` or ``3.14``, digits after the point one by one; never a year.

    A leading zero (``007``) means that the digits are a code and are read one by one.
    """
    whole, _, fraction = text.replace(",", "").partition(".")
    spoken = digits(whole) if _is_code(whole) else cardinal(int(whole or "0"))
    return f"{spoken} point {digits(fraction)}" if fraction else spoken


def bare_number(text: str) -> str:
    """A number with nothing around it: four digits from 1100 to 2099 are read like a year."""
    if len(text) == 4 and text.isdecimal() and 1100 <= int(text) <= 2099:
        return year(int(text))
    return quantity(text)


def money(symbol: str, amount: str, scale: str = "") -> str:
    """``$5.50`` -> ``five dollars and fifty cents``; ``$2.5`` million -> ``two point five million
    dollars``; an amount below one names the small unit only."""
    one, many, small_one, small_many = _MONEY[symbol]
    whole, _, fraction = amount.replace(",", "").partition(".")
    if scale or len(fraction) > 2 or _is_code(whole):
        return " ".join(filter(None, (quantity(amount), scale, many)))
    units, hundredths = int(whole or "0"), int(fraction.ljust(2, "0")) if fraction else 0
    main = f"{cardinal(units)} {one if units == 1 else many}"
    small = f"{cardinal(hundredths)} {small_one if hundredths == 1 else small_many}"
    if not hundredths:
        return main
    return f"{main} and {small}" if units else small


def clock(hour: int, minute: int, *, half_day_named: bool) -> str:
    """``10:30`` ten thirty, ``10:05`` ten oh five, ``10:00`` ten o'clock (ten, before am or pm),
    ``18:00`` eighteen hundred."""
    if minute >= 10:
        return f"{cardinal(hour)} {cardinal(minute)}"
    if minute:
        return f"{cardinal(hour)} oh {cardinal(minute)}"
    if half_day_named:
        return cardinal(hour)
    return f"{cardinal(hour)} o'clock" if 1 <= hour <= 12 else f"{cardinal(hour)} hundred"


def fraction(numerator: int, denominator: int) -> str:
    """``3, 4`` -> ``three quarters``; ``1, 2`` -> ``one half``."""
    name = ordinal(str(denominator))
    one, many = _FRACTIONS.get(denominator, (name, plural(name)))
    return f"{cardinal(numerator)} {one if numerator == 1 else many}"


def _is_code(whole: str) -> bool:
    """Digits that are not an amount: a leading zero, or too many to name."""
    leading_zero = len(whole) > 1 and whole.startswith("0")
    return leading_zero or len(whole.replace(",", "")) > 3 * len(_SCALES)


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [_SMALL[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        words += [_TENS[rest // 10]] + ([_SMALL[rest % 10]] if rest % 10 else [])
    elif rest:
        words.append(_SMALL[rest])
    return " ".join(words)
