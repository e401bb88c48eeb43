"""JSON of a caller, as every JSON parser would read it (RFC 7493): whatever it gives can be written again.

Python's own parser takes more: NaN, numbers beyond any float, and halves of a surrogate pair, which
fail wherever they are stored, compared or told.
"""

import json
import math
from typing import Any

_DIGITS = 19  # of a whole number; more are beyond 64 bits


def parsed(text: str | bytes) -> Any:
    """The value; `ValueError` for everything else, nesting without end included."""
    try:
        value = json.loads(
            text, parse_constant=_refused, parse_int=_whole_number, parse_float=_number
        )
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _whole_number(digits: str) -> int:
    if len(digits.lstrip("-")) > _DIGITS:
        raise ValueError("a number beyond 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number beyond every float")
    return value
