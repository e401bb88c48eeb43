"""Options of ``listen``, ``bench`` and ``slo``, apart from what they do: the command line imports little."""

from typing import Any

from pipelines._numbers import COUNT, amount, whole

_URL = "http://127.0.0.1:3000"


def add_commands(commands: Any, command: Any) -> None:
    """Declare the commands; ``command`` is the command line's own way."""
    listen = command(
        commands, "listen", "pipelines.listen:main", "speech to text, live, in this terminal"
    )
    listen.add_argument("--file", metavar="FILE", help="a recording instead of the microphone")
    listen.add_argument("--url", default=_URL, help=f"of the service ({_URL})")
    listen.add_argument("--json", action="store_true", help="print every message as JSON")
    listen.set_defaults(paths=("file",))
    bench = commands.add_parser("bench", help="load on a running service, measured")
    serve = command(
        bench.add_subparsers(metavar="ACTION", required=True),
        "serve",
        "pipelines.bench_serve:main",
        "paced live streams, or files in open-loop arrivals",
    )
    load = serve.add_mutually_exclusive_group(required=True)
    load.add_argument("--streams", type=COUNT, metavar="N", help="people who speak at once")
    load.add_argument(
        "--rate", type=amount(), metavar="R", help="files a second, at random moments"
    )
    serve.add_argument("--seconds", type=amount(), default=30.0, help="how long (30)")
    serve.add_argument("--url", default=_URL, help=f"of the service ({_URL})")
    serve.add_argument("--seed", type=whole(0), default=1, help="of the moments of arrival (1)")
    serve.add_argument("--lag-p95-ms", type=amount(), help="status 3 where finals lag more")
    serve.add_argument("--latency-p95-ms", type=amount(), help="status 3 where files take longer")
    serve.add_argument("--json", action="store_true", help="print one JSON object")
    serve.add_argument(
        "files", nargs="*", metavar="FILE", help="what to send (held-out recordings)"
    )
    serve.set_defaults(paths=("files",))
    slo = command(
        commands, "slo", "pipelines.slo:main", "objectives, and what is left of the error budgets"
    )
    slo.add_argument("--prometheus", metavar="URL", help="the server that scrapes the service")
    slo.add_argument("--write", action="store_true", help="make rules and dashboards anew")
    slo.add_argument("--json", action="store_true", help="print JSON")
