"""The service's log: JSON lines of names, counts and times; never a word of anybody's."""

import logging
import sys

from governance.telemetry import LOG_FIELDS, JsonLogFormatter
from serving.schema import ModelFacts

LOGGER_NAME = "auricle.serving"
# uvicorn and its WebSocket library, and the event loop that calls them.
FOREIGN_LOGGER_NAMES = ("uvicorn.error", "asyncio")
# uvicorn 0.54 says so of every WebSocket that is refused by an HTTP answer, which is none of its own.
_FALSE_ALARM = "ASGI callable returned without completing handshake."
_FIELDS = LOG_FIELDS | {"outcome", "code", "streams", "network_ms", "waited_s"}


def configure(level: int = logging.INFO) -> None:
    """Send the service's own log to standard error; a second call changes nothing."""
    logger = logging.getLogger(LOGGER_NAME)
    if logger.handlers:
        return
    for name in FOREIGN_LOGGER_NAMES:
        logging.getLogger(name).addFilter(without_content)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLogFormatter(fields=_FIELDS))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


def without_content(record: logging.LogRecord) -> bool:
    """Reduce a record of the HTTP server to its template's first line and the type of its error.

    Its arguments hold paths with queries, its tracebacks bytes of a client's frames, and what the
    event loop adds to its first line shows exceptions in full.
    """
    record.msg = str(record.msg).partition("\n")[0]
    if record.msg == _FALSE_ALARM:
        return False
    if record.exc_info and record.exc_info[0] is not None:
        record.msg = f"{record.msg} ({record.exc_info[0].__name__})"
    record.args, record.exc_info, record.exc_text = (), None, None
    return True


def event(name: str, **fields: str | int | float | bool) -> None:
    """Log an event by its constant name; fields outside the allowed list are dropped."""
    logging.getLogger(LOGGER_NAME).info(name, extra=fields, stacklevel=2)


def loaded(facts: ModelFacts, spent_s: float) -> None:
    """Log that a model is in memory, and what that took."""
    event(
        "loaded",
        model=facts.name,
        version=facts.version,
        variant=facts.variant,
        bundle_digest=facts.bundle_digest,
        total_ms=round(spent_s * 1000, 1),
    )


def crash(name: str, error: BaseException) -> None:
    """Log an unforeseen error by type and place; its text may hold content and stays out."""
    trace = (type(error), error, error.__traceback__)
    logging.getLogger(LOGGER_NAME).error(name, exc_info=trace, stacklevel=2)
