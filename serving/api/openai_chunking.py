"""``chunking_strategy``: ``auto`` or a ``server_vad`` object, as JSON or as the client's form keys."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import FormData

from serving.api.json_text import parsed
from serving.assemble import PAUSE_S
from serving.problems import ApiProblem

FIELD = "chunking_strategy"
_PARTS = ("type", "prefix_padding_ms", "silence_duration_ms", "threshold")
KEYS = tuple(f"{FIELD}[{part}]" for part in _PARTS)
_LEAST_MS, _MOST_MS = 100, 10_000
_USUAL_THRESHOLD = 0.5


def pause_of(form: FormData) -> float:
    """The pause that begins a new segment, in seconds."""
    strategy = _strategy(form)
    if strategy is None:
        return PAUSE_S
    for name in strategy:
        if name not in _PARTS:
            raise _refused(str(name)[:40], "is not part of a chunking strategy")
    if strategy.get("type") != "server_vad":
        raise _refused("type", "must be server_vad")
    if (padding_ms := _number(strategy, "prefix_padding_ms")) is not None and padding_ms < 0:
        raise _refused("prefix_padding_ms", "must not be negative")
    if _number(strategy, "threshold") not in (None, _USUAL_THRESHOLD):
        raise _refused("threshold", f"other than {_USUAL_THRESHOLD} is not supported")
    silence_ms = _number(strategy, "silence_duration_ms")
    if silence_ms is None:
        return PAUSE_S
    if not _LEAST_MS <= silence_ms <= _MOST_MS:
        raise _refused("silence_duration_ms", f"must lie between {_LEAST_MS} and {_MOST_MS}")
    return silence_ms / 1000


def _strategy(form: FormData) -> Mapping[str, Any] | None:
    """None for ``auto`` and where nothing is asked."""
    parts = {part: form[key] for part, key in zip(_PARTS, KEYS, strict=True) if key in form}
    given = form.get(FIELD, "")
    if given in ("", "auto"):
        return parts or None
    if parts:
        raise ApiProblem(400, f"`{FIELD}` is given twice.", param=FIELD, code="invalid_value")
    try:
        document = parsed(given) if isinstance(given, str) else None
    except ValueError:
        document = None
    if isinstance(document, str) and document == "auto":
        return None
    if not isinstance(document, dict):
        message = f"`{FIELD}` must be auto or a server_vad object."
        raise ApiProblem(400, message, param=FIELD, code="invalid_value")
    return document


def _number(strategy: Mapping[str, Any], part: str) -> float | None:
    value = strategy.get(part)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise _refused(part, "must be a number") from None


def _refused(part: str, why: str) -> ApiProblem:
    key = f"{FIELD}[{part}]"
    return ApiProblem(400, f"`{key}` {why}.", param=key, code="invalid_value")
