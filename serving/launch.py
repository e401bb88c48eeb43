"""How to start the service: the command, its environment, and where it listens."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from governance.telemetry import disable_vendor_telemetry

SERVICE = "serving.service:Auricle"
DEFAULT_PORT = 3000


def serve_command(*, port: int = DEFAULT_PORT, host: str = "127.0.0.1") -> list[str]:
    """Arguments of the process; run it in the project's folder, in a process group of its own."""
    return [
        sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(port),
    ]  # fmt: skip


def serve_environment(
    base: Mapping[str, str],
    *,
    bundle_dir: Path,
    bentoml_home: Path,
    priors_path: Path | None = None,
    model_version: str = "",
) -> dict[str, str]:
    """``base`` with the service's variables; ``bentoml_home`` is where BentoML keeps its state."""
    environment = dict(base)
    disable_vendor_telemetry(environment)
    environment["BENTOML_HOME"] = str(bentoml_home.absolute())
    environment["AURICLE_BUNDLE"] = str(bundle_dir.absolute())
    environment["AURICLE_MODEL_VERSION"] = model_version
    environment["AURICLE_PRIORS"] = str(priors_path.absolute()) if priors_path else ""
    environment.setdefault("OMP_NUM_THREADS", "1")
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Compiling every import anew takes most of a cold start; the byte code goes where state is.
        environment.setdefault("PYTHONPYCACHEPREFIX", str(bentoml_home.absolute() / "pycache"))
    # `python -m` would put the folder it runs in on the path anyway; a child's child would not.
    paths = [str(Path.cwd()), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment
