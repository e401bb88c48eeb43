"""Vendors' usage reports off, and logs that cannot carry anybody's words."""

import json
import logging
from collections.abc import Iterable, MutableMapping
from datetime import UTC, datetime
from pathlib import PurePath

OPT_OUT = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "EVIDENTLY_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "FEAST_USAGE": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""What each vendor reads before it reports usage; must be set before the vendor is imported."""

LOG_FIELDS = frozenset(
    {
        "request_id", "stream_id", "route", "method", "status", "port", "pid", "stage",
        "model", "version", "variant", "bundle_digest", "audio_digest", "prior_state", "warnings",
        "audio_s", "frames", "batch", "queue_depth",
        "queue_ms", "features_ms", "model_ms", "decoding_ms", "total_ms",
    }
)  # fmt: skip
"""The only extra fields that reach a log line: names, counts, times and digests, never content."""


def disable_vendor_telemetry(env: MutableMapping[str, str]) -> None:
    """Set every opt-out in ``env`` (``os.environ``, or the environment of a child process)."""
    env.update(OPT_OUT)


class JsonLogFormatter(logging.Formatter):
    """One JSON object per line, built from an allow-list.

    Content (a transcript, a file name, a query) reaches logs as an argument, as an extra field or
    in the text of an exception; so arguments are never interpolated, extras pass by name and only
    as scalars, and an exception is reduced to its type and place. Loggers that are not ours may
    have put content into the message itself: of them only level, name and place are kept.
    """

    def __init__(
        self, *, fields: Iterable[str] = LOG_FIELDS, own_loggers: tuple[str, ...] = ("auricle",)
    ) -> None:
        super().__init__()
        self._fields = tuple(sorted(fields))
        self._own_loggers = own_loggers

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "place": f"{PurePath(record.pathname).name}:{record.lineno}",
        }
        if self._is_own(record.name) and isinstance(record.msg, str):
            line["message"] = record.msg  # the template, never the interpolated text
        for name in self._fields:
            value = record.__dict__.get(name)
            if isinstance(value, str | int | float | bool):
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["error_place"] = _innermost_place(record)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))

    def _is_own(self, name: str) -> bool:
        return any(name == own or name.startswith(f"{own}.") for own in self._own_loggers)


def _innermost_place(record: logging.LogRecord) -> str:
    """File and line at which the exception was raised."""
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
