"""Schemathesis against a running service: what ``/openapi.json`` promises is what is answered."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
_SOCKET = "/v1/listen"  # a WebSocket: `benchmarks._malformed` speaks to it
_PHASES = "examples,coverage,fuzzing"
_COUNT = re.compile(r"(\d[\d,]*) generated")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a run of Schemathesis ended."""

    status: int  # 0: every promise was kept
    cases: int
    told: str


def checked(
    url: str, *, examples: int, key: str = "", without: tuple[str, ...] = (), limit_s: float
) -> Verdict:
    """Ask every operation ``examples`` times, and with every boundary of its shape. Deterministic."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json",
        "--phases", _PHASES, "--checks", ",".join(CHECKS), "--max-examples", str(examples),
        "--generation-deterministic", "--continue-on-failure", "--suppress-health-check", "all",
        "--request-timeout", "60", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    for path in (_SOCKET, *without):
        command += ["--exclude-path", path]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    found = _COUNT.search(ended.stdout)
    return Verdict(
        status=ended.returncode,
        cases=int(found[1].replace(",", "")) if found else 0,
        told=ended.stdout + ended.stderr,
    )
