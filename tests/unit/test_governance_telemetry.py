import json
import logging
import sys
from typing import Any

from governance.telemetry import JsonLogFormatter, disable_vendor_telemetry

SECRET = "the quick canary phrase"


def line(name: str, message: str, *arguments: object, **extra: object) -> dict[str, Any]:
    record = logging.LogRecord(name, logging.INFO, "/x/place.py", 7, message, arguments, None)
    record.__dict__.update(extra)
    text = JsonLogFormatter().format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_every_vendor_is_told_and_nothing_else_is_lost() -> None:
    env = {"PATH": "/bin", "DO_NOT_TRACK": "0"}
    disable_vendor_telemetry(env)
    assert env["PATH"] == "/bin" and env["DO_NOT_TRACK"] == "1"
    assert env["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert env["GX_ANALYTICS_ENABLED"] == "false"
    assert {"DVC_NO_ANALYTICS", "BENTOML_DO_NOT_TRACK", "RAY_USAGE_STATS_ENABLED"} <= env.keys()


def test_named_fields_pass_and_others_do_not() -> None:
    made = line("auricle.serving", "answered", status=200, model_ms=1.5, text=SECRET)
    assert made["status"] == 200 and made["model_ms"] == 1.5
    assert made["message"] == "answered" and made["place"] == "place.py:7"
    assert SECRET not in json.dumps(made)


def test_arguments_structures_and_foreign_messages_carry_no_content() -> None:
    lines = [
        line("auricle", "heard %s", SECRET),
        line("auricle", "heard", model={"text": SECRET}),
        line("uvicorn.access", f"GET /?q={SECRET}"),
        line("auricle2", SECRET),
    ]
    assert all(SECRET not in json.dumps(made) for made in lines)
    assert lines[0]["message"] == "heard %s" and "message" not in lines[2]


def test_an_exception_is_its_type_and_place() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        record = logging.LogRecord(
            "auricle", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info()
        )
    text = JsonLogFormatter().format(record)
    assert SECRET not in text
    made = json.loads(text)
    assert made["error"] == "ValueError"
    assert made["error_place"].startswith("test_governance_telemetry.py:")
