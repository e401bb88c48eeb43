"""Numbers on the command line: `argparse` names the option, these say what it may be."""

import argparse
import math
from collections.abc import Callable


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number from ``least`` on, up to ``most`` where there is an end."""
    words = f"{least} or more" if most is None else f"{least} to {most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"a whole number is expected, {words}, found {text!r}")
        return value

    return read


def amount(*, zero: bool = False) -> Callable[[str], float]:
    """A number above 0; with ``zero`` 0 as well."""
    words = "0 or more" if zero else "above 0"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise argparse.ArgumentTypeError(f"a number is expected, {words}, found {text!r}")
        return value

    return read


COUNT = whole(1)
PORT = whole(1, 65_535)
