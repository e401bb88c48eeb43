"""Bounds of parameters, stated where a field is declared: ``steps: Count``.

`governance.params` refuses a value beyond them by its key. Whoever makes such a dataclass in Python
answers for the values themselves.
"""

from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Annotated, Any

from governance.errors import ConfigError


@dataclass(frozen=True)
class Bound:
    """What a value must keep to; stands in ``Annotated[type, Bound]``."""

    words: str  # completes "must be ..."
    holds: Callable[[Any], bool]


def at_least(low: float) -> Bound:
    """``low`` itself is allowed."""
    return Bound(f"{low} or more", lambda value: bool(value >= low))


def above(low: float) -> Bound:
    """``low`` itself is not allowed."""
    return Bound(f"above {low}", lambda value: bool(value > low))


def below(high: float) -> Bound:
    """``high`` itself is not allowed."""
    return Bound(f"below {high}", lambda value: bool(value < high))


def between(low: float, high: float) -> Bound:
    """Both ends are allowed."""
    return Bound(f"between {low} and {high}", lambda value: bool(low <= value <= high))


def _some(value: Sized) -> bool:
    return len(value) > 0


NOT_EMPTY = Bound("a list of at least one entry", _some)
ASCENDING = Bound("two values with the lower one first", lambda pair: bool(pair[0] <= pair[1]))

Count = Annotated[int, at_least(1)]
Whole = Annotated[int, at_least(0)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Share = Annotated[float, between(0, 1)]
Percent = Annotated[float, between(0, 100)]
Name = Annotated[str, Bound("at least one letter", _some)]
PlayedSpeeds = Annotated[tuple[Annotated[float, between(0.5, 2)], ...], NOT_EMPTY]
"""How much faster recordings are played: speech stays speech within these."""
Span = Annotated[tuple[float, float], ASCENDING]
PositiveSpan = Annotated[tuple[Positive, Positive], ASCENDING]
CountSpan = Annotated[tuple[Count, Count], ASCENDING]


def require_order(config: object, section: str, *pairs: tuple[str, str]) -> None:
    """Refuse fields of ``config`` whose lower end lies above the upper one; ``pairs`` names both."""
    for low, high in pairs:
        least, most = getattr(config, low), getattr(config, high)
        if least > most:
            raise ConfigError(
                f"{least} lies above {high}, which is {most}",
                item=f"params.yaml: {section}.{low}",
                mend=f"lower it, or raise {section}.{high}",
            )
