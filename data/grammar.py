"""What the voices of the built-in corpus say: numbers, digit strings and household commands.

A closed vocabulary of about 130 words, so that a small model learns it within minutes on a laptop.
"""

from collections.abc import Callable

import numpy as np

from data import numerals

_ROOMS = ("kitchen", "bedroom", "bathroom", "garage", "hall")
_DEVICES = ("lights", "fan", "heater", "radio", "lamp")
_PEOPLE = ("anna", "david", "peter", "maria", "mom", "dad", "the office", "the doctor")
_MUSIC = ("jazz", "rock", "classical music", "the news", "my favourite song")
_GOODS = ("milk", "bread", "eggs", "coffee", "tea", "apples", "rice", "butter")
_DAYS = ("today", "tomorrow", "on monday", "on friday", "on sunday")
_TASKS = ("call", "buy", "water the plants", "feed the cat", "close the window")
_SHORT = (
    "stop", "cancel", "pause the music", "next song please", "good morning", "good night",
    "thank you", "yes please", "no thank you", "help me", "volume up", "volume down",
)  # fmt: skip

_NUMBER_WORDS = frozenset(" ".join(map(numerals.cardinal, range(1000))).split())

_Draw = Callable[[np.random.Generator], str]


def sentence(generator: np.random.Generator) -> str:
    """One sentence as it is spoken, already in normal form."""
    forms = [form for form, _ in _FORMS]
    weights = np.array([weight for _, weight in _FORMS])
    return forms[int(generator.choice(len(forms), p=weights / weights.sum()))](generator)


def is_open(text: str) -> bool:
    """Whether the sentence holds a number, and so is one of thousands."""
    return not _NUMBER_WORDS.isdisjoint(text.split())


def vocabulary() -> frozenset[str]:
    """Every word that a sentence can hold."""
    fixed = (
        "turn on off the open close door window set a timer for minutes seconds hours an alarm "
        "in morning evening call play what is weather time temperature plus minus times percent "
        "add to shopping list remind me at volume number room code how much"
    )
    pools = (_ROOMS, _DEVICES, _PEOPLE, _MUSIC, _GOODS, _DAYS, _TASKS, _SHORT)
    words = " ".join(" ".join(pool) for pool in pools)
    return _NUMBER_WORDS | frozenset(f"{fixed} {words}".split())


def _pick(generator: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(generator.integers(len(options)))]


def _number(generator: np.random.Generator, below: int) -> str:
    return numerals.cardinal(int(generator.integers(below)))


def _bare_number(generator: np.random.Generator) -> str:
    return _number(generator, 1000)


def _digit_string(generator: np.random.Generator) -> str:
    length = int(generator.integers(3, 8))
    return numerals.digits("".join(str(digit) for digit in generator.integers(0, 10, length)))


def _code(generator: np.random.Generator) -> str:
    return f"{_pick(generator, ('number', 'room', 'code'))} {_bare_number(generator)}"


def _switch(generator: np.random.Generator) -> str:
    where, what = _pick(generator, _ROOMS), _pick(generator, _DEVICES)
    return f"turn {_pick(generator, ('on', 'off'))} the {where} {what}"


def _open(generator: np.random.Generator) -> str:
    verb, what = _pick(generator, ("open", "close")), _pick(generator, ("door", "window"))
    return f"{verb} the {_pick(generator, _ROOMS)} {what}"


def _timer(generator: np.random.Generator) -> str:
    unit = _pick(generator, ("minutes", "seconds", "hours"))
    return f"set a timer for {numerals.cardinal(int(generator.integers(2, 60)))} {unit}"


def _clock_time(generator: np.random.Generator) -> str:
    hour, minute = int(generator.integers(1, 13)), int(generator.choice([0, 10, 15, 30, 45]))
    return numerals.clock(hour, minute, half_day_named=True)


def _alarm(generator: np.random.Generator) -> str:
    part = _pick(generator, ("in the morning", "in the evening"))
    return f"set an alarm for {_clock_time(generator)} {part}"


def _call(generator: np.random.Generator) -> str:
    return f"call {_pick(generator, _PEOPLE)}"


def _play(generator: np.random.Generator) -> str:
    return f"play {_pick(generator, _MUSIC)} in the {_pick(generator, _ROOMS)}"


def _ask(generator: np.random.Generator) -> str:
    subject = _pick(generator, ("weather", "time", "temperature"))
    return f"what is the {subject} {_pick(generator, _DAYS)}"


def _sum(generator: np.random.Generator) -> str:
    sign = _pick(generator, ("plus", "minus", "times"))
    return f"how much is {_number(generator, 100)} {sign} {_number(generator, 100)}"


def _shopping(generator: np.random.Generator) -> str:
    return f"add {_pick(generator, _GOODS)} to the shopping list"


def _reminder(generator: np.random.Generator) -> str:
    task = _pick(generator, _TASKS)
    if task == "call":
        task = _call(generator)
    elif task == "buy":
        task = f"buy {_pick(generator, _GOODS)}"
    return f"remind me to {task} {_pick(generator, ('at ' + _clock_time(generator), *_DAYS))}"


def _volume(generator: np.random.Generator) -> str:
    return f"set the volume to {numerals.cardinal(5 * int(generator.integers(1, 21)))} percent"


def _short(generator: np.random.Generator) -> str:
    return _pick(generator, _SHORT)


_FORMS: tuple[tuple[_Draw, float], ...] = (
    (_bare_number, 2.0), (_digit_string, 2.0), (_code, 1.0), (_switch, 2.0), (_open, 1.0),
    (_timer, 2.0), (_alarm, 1.5), (_call, 0.7), (_play, 1.0), (_ask, 0.8), (_sum, 1.5),
    (_shopping, 1.0), (_reminder, 1.5), (_volume, 0.7), (_short, 1.2),
)  # fmt: skip
