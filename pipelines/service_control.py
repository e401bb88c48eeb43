"""Operations ``up``, ``down`` and ``serve``: the packaged service and the MLflow UI as processes."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from governance.errors import AuricleError
from pipelines import _paths as paths
from pipelines import processes
from pipelines._champion import promotion, resolve
from pipelines.run import child_environment
from serving.launch import serve_command, serve_environment

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
    environment = serve_environment(
        child_environment(),
        bundle_dir=bundle,
        bentoml_home=paths.BENTO_ROOT / "home",
        priors_path=_priors(),
    )
    os.execve(sys.executable, serve_command(port=args.port, host=args.host), environment)


def start_service(name: str, event: dict[str, Any], *, port: int) -> float:
    """Start the bento of a promotion and wait until it is warm; seconds waited."""
    environment = serve_environment(
        child_environment(),
        bundle_dir=None,
        bentoml_home=paths.BENTO_ROOT / "home",
        priors_path=_priors(),
        model_version=str(event["version"]),
    )
    processes.start(name, serve_command(port=port, target=event["bento"]), environment, port=port)
    return processes.wait_ready(
        f"http://127.0.0.1:{port}/readyz",
        timeout_s=_READY_TIMEOUT_S,
        alive=lambda: processes.running(name) is not None,
        log=paths.RUN / f"{name}.log",
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


def _priors() -> Path | None:
    return paths.PRIOR_VIEW if paths.PRIOR_VIEW.exists() else None
