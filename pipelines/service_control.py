"""Operations ``up``, ``down`` and ``serve``: the packaged service and the MLflow UI as processes."""

import argparse
import os
import sys
from typing import Any

from governance.errors import AuricleError
from pipelines import _paths as paths
from pipelines import processes
from pipelines._champion import promotion, resolve
from pipelines.run import child_environment

SERVICE, MLFLOW = "service", "mlflow"
_READY_TIMEOUT_S, _MLFLOW_TIMEOUT_S = 60.0, 120.0


def up(args: argparse.Namespace) -> int:
    """Service first, so that transcripts are available at once; the MLflow UI when it is ready."""
    for name in (SERVICE, MLFLOW):
        if processes.running(name):
            raise AuricleError("runs already", item=name, mend="`make down` first")
    waited_s = start_service(SERVICE, promotion(paths.MODEL_NAME, "champion"), port=args.port)
    sys.stdout.write(f"service    http://127.0.0.1:{args.port}  (ready after {waited_s:.1f} s)\n")
    if args.no_mlflow:
        return 0
    try:
        waited_s = start_mlflow(args.mlflow_port)
    except BaseException:
        processes.stop(MLFLOW)
        processes.stop(SERVICE)
        raise
    sys.stdout.write(
        f"MLflow UI  http://127.0.0.1:{args.mlflow_port}  (ready after {waited_s:.1f} s)\n"
        "stop both with `make down`\n"
    )
    return 0


def down(args: argparse.Namespace) -> int:
    """Stop both; nothing running is fine."""
    for name in (MLFLOW, SERVICE):
        state = "stopped" if processes.stop(name) else "was not running"
        sys.stdout.write(f"{name}: {state}\n")
    return 0


def serve(args: argparse.Namespace) -> int:
    """The service in the foreground, from a bundle; this process becomes the server."""
    bundle = resolve(args.model)
    processes.require_free(args.port, item=SERVICE)
    environment = service_environment() | {"AURICLE_BUNDLE": str(bundle.resolve())}
    command = service_command("serving.service:AuricleService", args.host, args.port)
    os.execve(sys.executable, command, environment)


def start_service(name: str, event: dict[str, Any], *, port: int) -> float:
    """Start the bento of a promotion and wait until it is warm; seconds waited."""
    environment = service_environment()
    log = paths.RUN / f"{name}.log"
    pid = processes.start(
        name, service_command(event["bento"], "127.0.0.1", port), environment, port=port
    )
    return processes.wait_ready(
        f"http://127.0.0.1:{port}/readyz",
        timeout_s=_READY_TIMEOUT_S,
        alive=lambda: processes.running(name) is not None and pid > 0,
        log=log,
    )


def start_mlflow(port: int) -> float:
    """Start the MLflow UI on the workspace's store; seconds waited."""
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{paths.MLFLOW_DB.as_posix()}",
        "--artifacts-destination", paths.MLFLOW_ARTIFACTS.as_posix(), "--workers", "1",
    ]  # fmt: skip
    processes.start(MLFLOW, command, child_environment(), port=port)
    return processes.wait_ready(
        f"http://127.0.0.1:{port}/health",
        timeout_s=_MLFLOW_TIMEOUT_S,
        alive=lambda: processes.running(MLFLOW) is not None,
        log=paths.RUN / "mlflow.log",
    )


def service_command(target: str, host: str, port: int) -> list[str]:
    """``bentoml serve`` through this interpreter."""
    return [
        sys.executable, "-m", "bentoml", "serve", target, "--host", host, "--port", str(port),
    ]  # fmt: skip


def service_environment() -> dict[str, str]:
    """Environment of the service: its own bento store, the online priors, telemetry off."""
    environment = child_environment()
    environment["BENTOML_HOME"] = str(paths.BENTOML_HOME.resolve())
    if paths.PRIOR_VIEW.exists():
        environment["AURICLE_PRIORS"] = str(paths.PRIOR_VIEW.resolve())
    return environment
