"""The service's log: JSON lines of names, counts and times; never a word of anybody's."""

import logging
import sys

from governance.telemetry import LOG_FIELDS, JsonLogFormatter

LOGGER_NAME = "auricle.serving"
_FIELDS = LOG_FIELDS | {"outcome", "code", "streams", "network_ms", "waited_s"}


def configure(level: int = logging.INFO) -> None:
    """Send the service's own log to standard error; a second call changes nothing."""
    logger = logging.getLogger(LOGGER_NAME)
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLogFormatter(fields=_FIELDS))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


def event(name: str, **fields: str | int | float | bool) -> None:
    """Log an event by its constant name; fields outside the allowed list are dropped."""
    logging.getLogger(LOGGER_NAME).info(name, extra=fields, stacklevel=2)


def crash(name: str, error: BaseException) -> None:
    """Log an unforeseen error by type and place; its text may hold content and stays out."""
    trace = (type(error), error, error.__traceback__)
    logging.getLogger(LOGGER_NAME).error(name, exc_info=trace, stacklevel=2)
