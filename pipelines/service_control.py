"""Operations ``up``, ``down`` and ``serve``: the packaged service and the MLflow UI as processes."""

import argparse
import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from governance.errors import AuricleError, ConfigError
from pipelines import _paths as paths
from pipelines import processes
from pipelines._champion import promotion, resolve
from pipelines._service_key import VARIABLE, ensure_development_key
from pipelines.run import child_environment
from serving.packaging.launch import require_protected, serve_command, serve_environment
from serving.packaging.tls import MINIMUM_DEFAULT, Tls
from serving.page.snippets import Snippet, snippets
from serving.swap.live_folder import LiveFolder

SERVICE, MLFLOW = "service", "mlflow"
_TITLES = {SERVICE: "service", MLFLOW: "MLflow UI"}
# Its background jobs judge language models: eight more processes, half of its start.
_MLFLOW_WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
_SAMPLE = Path("data/reports/sample.flac")  # which `auricle demo` leaves ...
_SAMPLE_WAV = _SAMPLE.with_suffix(".wav")  # ... also for those who read samples out of it
_READY_TIMEOUT_S, _MLFLOW_TIMEOUT_S = 60.0, 120.0


def up(args: argparse.Namespace) -> int:
    """Service first, so that transcripts are available at once; the MLflow UI when it is ready.

    A failure takes away only itself: without its UI, a service that is ready stays (exit status 2
    says that not everything was done, and `up` again starts what is missing). An interruption takes
    back all that this call started.
    """
    wanted = [SERVICE] if args.no_mlflow else [SERVICE, MLFLOW]
    already = {name: int(facts["port"]) for name in wanted if (facts := processes.running(name))}
    if len(already) == len(wanted):
        raise AuricleError("runs already", item=" and ".join(wanted), mend="`make down` first")
    event = promotion(paths.MODEL_NAME, "champion")
    tls = _tls(args)
    try:
        if SERVICE in already:
            _say(SERVICE, already[SERVICE], "runs already")
        else:
            key = None if args.no_key else ensure_development_key()
            waited_s = start_service(SERVICE, event, port=args.port, keyed=key is not None, tls=tls)
            origin = _origin(args.port, tls)
            _say(SERVICE, args.port, f"ready after {waited_s:.1f} s", tls)
            sys.stdout.write(ready_to_use(origin, event["model"], key, tls))
            sys.stdout.flush()  # the service can be used while the UI still starts
        if MLFLOW in already:
            _say(MLFLOW, already[MLFLOW], "runs already")
        elif MLFLOW in wanted:
            waited_s = _mlflow_beside_service(args.mlflow_port)
            _say(MLFLOW, args.mlflow_port, f"ready after {waited_s:.1f} s")
    except KeyboardInterrupt:
        if SERVICE not in already:
            processes.stop(SERVICE)
        raise
    sys.stdout.write("stop with `make down`\n")
    return 0


def _say(name: str, port: int, state: str, tls: Tls | None = None) -> None:
    sys.stdout.write(f"{_TITLES[name]:10} {_origin(port, tls)}  ({state})\n")
    sys.stdout.flush()


def _origin(port: int, tls: Tls | None = None) -> str:
    return f"http{'' if tls is None else 's'}://127.0.0.1:{port}"


def ready_to_use(origin: str, model: str, key: Path | None, tls: Tls | None = None) -> str:
    """What a person does with a service that has just started: code that runs as it stands.

    The key is named by its file: what is printed ends up in terminals' histories and logs.
    """
    lines = [f"           {origin}/ in a browser: record, or drop a file", ""]
    if tls is not None:
        lines += [
            "# Clients must trust the certificate and reach the service by the name in it; for a",
            "# certificate of your own: SSL_CERT_FILE, curl's --cacert, Node's NODE_EXTRA_CA_CERTS.",
            "",
        ]
    if key is not None:
        quoted = shlex.quote(str(key.absolute()))
        lines += [f'export {VARIABLE}="$(cat {quoted})"  # for this machine alone', ""]
    for snippet in snippets():
        lines += [f"# {snippet.title}: {snippet.about}", _code(snippet, origin, model), ""]
    lines += ["# in this terminal, live: `auricle listen`", ""]
    return "\n".join(lines) + "\n"


def _code(snippet: Snippet, origin: str, model: str) -> str:
    sample = _SAMPLE_WAV if snippet.reads_wav else _SAMPLE
    sound = sample.as_posix() if sample.exists() else "recording.wav"
    return snippet.filled(origin=origin, model=model).replace("recording.wav", sound)


def _mlflow_beside_service(port: int) -> float:
    """Start the UI; a failure says that the service goes on."""
    try:
        return start_mlflow(port)
    except AuricleError as error:
        raise AuricleError(
            f"{error.message}; the service goes on without it",
            item=_TITLES[MLFLOW],
            mend=f"{error.mend}; then `auricle up` starts the UI alone",
        ) from None


def down(args: argparse.Namespace) -> int:
    """Stop both; nothing running is fine."""
    for name in (MLFLOW, SERVICE):
        state = "stopped" if processes.stop(name) else "was not running"
        sys.stdout.write(f"{name}: {state}\n")
    return 0


def serve(args: argparse.Namespace) -> int:
    """The service in the foreground, from a bundle; this process becomes the server."""
    bundle, tls = resolve(args.model), _tls(args)
    processes.require_free(args.port, item=SERVICE)
    environment = serve_environment(
        child_environment(),
        bundle_dir=bundle,
        bentoml_home=paths.BENTO_ROOT / "home",
        priors_path=_if_there(paths.PRIOR_VIEW),
        jobs_dir=paths.JOBS,
        keys_path=_if_there(paths.API_KEYS),
        records_dir=paths.API_KEYS.parent,
        page_key_path=_if_there(paths.DEVELOPMENT_KEY),
        model_aliases=_aliases(*args.model.split("@", 1)) if "@" in args.model else [],
        tls=tls,
    )
    _follow_swaps(environment, args.port)
    require_protected(args.host, environment)
    command = serve_command(port=args.port, host=args.host, tls=tls)
    os.execve(sys.executable, command, environment)


def start_service(
    name: str, event: dict[str, Any], *, port: int, keyed: bool = True, tls: Tls | None = None
) -> float:
    """Start the bento of a promotion and wait until it is warm; seconds waited.

    It asks for a key where the workspace has a key store, unless it is not to be ``keyed``.
    """
    environment = serve_environment(
        child_environment(),
        bundle_dir=None,
        bentoml_home=paths.BENTO_ROOT / "home",
        priors_path=_if_there(paths.PRIOR_VIEW),
        jobs_dir=paths.JOBS,
        keys_path=_if_there(paths.API_KEYS) if keyed else None,
        records_dir=paths.API_KEYS.parent,
        page_key_path=_if_there(paths.DEVELOPMENT_KEY) if keyed else None,
        tls=tls,
        model_version=str(event["version"]),
        model_aliases=_aliases(event["model"], event["alias"]),
    )
    _follow_swaps(environment, port)
    return _start(
        name,
        serve_command(port=port, target=event["bento"], tls=tls),
        environment,
        port=port,
        ready=f"{_origin(port, tls)}/readyz",
        timeout_s=_READY_TIMEOUT_S,
    )


def _follow_swaps(environment: dict[str, str], port: int) -> None:
    """Where `auricle swap` reaches the service; what an earlier one was told to serve is over.

    An operator's own folder stands, with what is wanted there.
    """
    if not environment.get("AURICLE_LIVE"):
        live = LiveFolder(paths.live(port))
        live.forget()
        environment["AURICLE_LIVE"] = str(live.folder.absolute())


def start_mlflow(port: int) -> float:
    """Start the MLflow UI on the workspace's store; seconds waited."""
    if find_spec("mlflow") is None:
        raise AuricleError(
            "not installed",
            item=_TITLES[MLFLOW],
            mend="`bash deploy/setup.sh train`, or `auricle up --no-mlflow`",
        )
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{paths.MLFLOW_DB.as_posix()}",
        "--artifacts-destination", paths.MLFLOW_ARTIFACTS.as_posix(), "--workers", "1",
    ]  # fmt: skip
    return _start(
        MLFLOW,
        command,
        child_environment() | _MLFLOW_WITHOUT_JOBS,
        port=port,
        ready=f"{_origin(port)}/health",
        timeout_s=_MLFLOW_TIMEOUT_S,
        option="--mlflow-port",
    )


def _start(
    name: str,
    command: list[str],
    environment: dict[str, str],
    *,
    port: int,
    ready: str,
    timeout_s: float,
    option: str = "--port",
) -> float:
    """Start a process and wait for it; one that does not get ready is not left behind."""
    processes.stop(name)  # only what a killed predecessor left: the caller knows that none runs
    processes.require_free(port, item=name, option=option)
    try:
        processes.start(name, command, environment, port=port)
        return processes.wait_ready(
            ready,
            timeout_s=timeout_s,
            alive=lambda: processes.running(name) is not None,
            log=paths.RUN / f"{name}.log",
        )
    except BaseException:
        processes.stop(name)
        raise


def _aliases(name: str, alias: str) -> list[str]:
    """What requests may call the model: its name, and the alias that it was started by."""
    return [name, f"{name}@{alias}"]


def _tls(args: argparse.Namespace) -> Tls | None:
    """What was given on the command line, or else in the environment."""
    given = {}
    for name in ("certificate", "key", "minimum"):
        value = getattr(args, f"tls_{name}") or os.environ.get(f"AURICLE_TLS_{name.upper()}")
        if value:
            given[name] = value
    if not given:
        return None
    if not {"certificate", "key"} <= given.keys():
        raise ConfigError(
            "a certificate and its key are needed", item="--tls-certificate, --tls-key"
        )
    return Tls(
        certificate=Path(given["certificate"]),
        key=Path(given["key"]),
        minimum=given.get("minimum", MINIMUM_DEFAULT),
    )


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
