"""The words that numbers, letters, dates and addresses are spoken with, and what announces them."""


def _spaced(text: str) -> list[str]:
    return text.split()


def words_of(text: str) -> frozenset[str]:
    """A set of words, written with spaces between them."""
    return frozenset(text.split())


UNITS = {
    "zero": "0", "nought": "0", "naught": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "niner": "9",
}  # fmt: skip
ZERO_LETTERS = frozenset({"oh", "o"})
"""Zero beside a digit, a letter beside a letter, otherwise an exclamation."""
TEENS = {
    "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14",
    "fifteen": "15", "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19",
}  # fmt: skip
TENS = {
    "twenty": "20", "thirty": "30", "forty": "40", "fourty": "40", "fifty": "50", "sixty": "60",
    "seventy": "70", "eighty": "80", "ninety": "90",
}  # fmt: skip
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9}
TIMES = {"double": 2, "triple": 3, "treble": 3, "quadruple": 4}
_FIRST = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
          "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth",
          "seventeenth", "eighteenth", "nineteenth", "twentieth")  # fmt: skip
ORDINALS = {word: str(value) for value, word in enumerate(_FIRST, start=1)} | {"thirtieth": "30"}
MONTHS = words_of(
    "january february march april may june july august september october november december "
    "jan feb apr jun jul aug sept sep oct nov dec"
)

NATO = dict(
    zip(
        _spaced(
            "alpha alfa bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike "
            "november oscar papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
        ),
        "aabcdefghijjklmnopqrstuvwxyz",
        strict=True,
    )
)
LETTER_NAMES = {
    "zed": "z", "zee": "z", "bee": "b", "dee": "d", "gee": "g", "jay": "j", "kay": "k", "ess": "s",
    "vee": "v", "aitch": "h", "tee": "t", "pee": "p",
}  # fmt: skip

FILLERS = words_of("uh um er erm ah hm hmm mm eh so then okay ok")
LINKS = words_of("dash hyphen minus space slash dot point underscore plus and of the stroke")
SOFT_DIGITS = words_of("won to too for fore ate tree fife wun fower")
"""What a recogniser writes where a digit was said; believed between digits only."""

ABBREVIATIONS = words_of(
    "us uk eu tv ok am pm pc it hr ps dj id ip ac bc cd uv vat usa atm fbi cia nba nfl dvd pdf bbc "
    "cnn abc faq vip ceo cto cfo gps usb url www http api sms suv led lcd mri dna nhs nasa bmw "
    "html asap diy fyi rsvp aka eta phd mba bmi vpn sql xml"
)
UNITS_OF_QUANTITY = words_of(
    "am pm o'clock oclock percent dollar dollars cent cents pound pounds euro euros pence penny "
    "degree degrees second seconds minute minutes hour hours day days week weeks month months year "
    "years times meter meters metre metres mile miles kilometers kilometres inch inches feet foot "
    "gram grams kilo kilos ounce ounces oz litre litres liter liters milliliters millilitres ml mg "
    "people persons guests cups coffees espressos lattes shots pieces items copies pages points "
    "megabytes gigabytes calories bucks quid squared hertz watts volts"
)
DETERMINERS = words_of(
    "this that the which another no any every each same other last next right wrong only old new "
    "big small large good bad best better a either"
)
"""Before ``one`` these make it a pronoun."""

CUES = {
    "card": "card cards visa mastercard amex credit debit maestro",
    "cvv": "cvv cvc cvn cv2 csc security verification",
    "expiry": "exp expires expire expiry expiration expiring valid",
    "ssn": "social ssn tin itin taxpayer",
    "phone": "phone telephone mobile cell cellphone call text reach ring dial fax whatsapp landline "
    "contact callback tel",
    "dob": "born birth birthday birthdate dob",
    "iban": "iban",
    "account": "account routing sort passport licence license policy member membership reference pin "
    "passcode password id medicare patient insurance customer",
}
KIND_OF_CUE = {word: kind for kind, words in CUES.items() for word in words_of(words)}
SPELLING = words_of("spelled spelt spell spelling initials letters name surname")
SPELLED_CUES = frozenset({"ssn", "dob", "cvv", "cvc", "pin", "iban", "id", "tin"})

MAIL_CUES = frozenset({"email", "e-mail", "mail", "emails"})
MAIL_HOSTS = words_of("gmail googlemail yahoo hotmail outlook icloud aol proton protonmail")
TOP_DOMAINS = words_of("com org net edu gov uk de fr es it io co ai info biz us eu ca au nl ch at be "
                        "app dev me tv")  # fmt: skip
