"""Options of ``auricle keys``, apart from what they do: the command line declares, and imports little."""

from typing import Any

from pipelines._numbers import COUNT, amount, whole

LIMITS = {
    "requests_per_minute": "requests_per_minute",
    "audio_seconds_per_minute": "audio_s_per_minute",
    "audio_seconds_per_day": "audio_s_per_day",
    "audio_seconds_per_month": "audio_s_per_month",
    "streams": "streams",
}
"""Option of ``auricle keys tenant``, and the limit that it sets."""


def add_commands(actions: Any, command: Any) -> None:
    """Declare the actions below ``auricle keys``; ``command`` is the command line's own way."""
    made = command(actions, "create", "pipelines.keys:create", "a new key, shown once")
    made.add_argument("--tenant", required=True, help="on whose behalf it works")
    made.add_argument(
        "--scopes",
        default="transcribe,listen",
        help="of transcribe, listen, jobs, unredacted, admin",
    )
    made.add_argument("--name", default="", help="what for")
    made.add_argument("--days", type=amount(), help="until it expires (never)")
    turned = command(actions, "rotate", "pipelines.keys:rotate", "a successor with equal rights")
    turned.add_argument(
        "--overlap-hours", type=amount(zero=True), default=24.0, help="both work (24)"
    )
    turned.add_argument("--days", type=amount(), help="until the new one expires (never)")
    ended = command(actions, "revoke", "pipelines.keys:revoke", "refuse a key from now on")
    for parser in (turned, ended):
        parser.add_argument("id", metavar="ID", help="public half of a key: `auricle keys list`")
    listed = command(actions, "list", "pipelines.keys:list_keys", "keys, without their secrets")
    ruled = command(actions, "tenant", "pipelines.keys:tenant", "what a tenant may use and hides")
    used = command(
        actions, "usage", "pipelines.keys:usage", "requests and audio seconds of a tenant"
    )
    for parser in (ruled, used):
        parser.add_argument("tenant", metavar="TENANT", help="on whose behalf keys work")
    for option in LIMITS:
        kind = whole(0) if option in ("requests_per_minute", "streams") else amount(zero=True)
        ruled.add_argument(f"--{option.replace('_', '-')}", type=kind, help="0: no limit")
    ruled.add_argument("--redact", help="hidden where a request says nothing: pci,ssn,...; none")
    ruled.add_argument("--redact-mode", choices=("mask", "remove"), help="how it is hidden")
    used.add_argument("--since", metavar="DAY", help="first day, as in 2026-11-01")
    seen = command(actions, "access", "pipelines.keys:access", "verify and show who did what")
    seen.add_argument("--month", default="", help="as in 2026-11 (the present one)")
    seen.add_argument("--last", type=COUNT, default=50, help="newest events (50)")
    for parser in (made, turned, ended, listed, ruled, used, seen):
        parser.add_argument("--store", metavar="FILE", help="key store (this workspace's)")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(paths=("store",))
