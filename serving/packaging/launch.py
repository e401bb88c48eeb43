"""How to start the service: the command, its environment, and where it listens."""

import importlib.util
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from governance.errors import ConfigError
from governance.telemetry import disable_vendor_telemetry
from serving.packaging.tls import MINIMUM, Tls

SERVICE = "serving.service:Auricle"
DEFAULT_PORT = 3000
# Longer than clients and balancers keep an idle connection: else they write into a closed one.
_KEEP_ALIVE_S = 75
LOOPBACK = "127.0.0.1"


def require_protected(host: str, environment: Mapping[str, str]) -> None:
    """Nobody is let in from other machines without a key, unless the operator says so."""
    if _is_loopback(host) or environment.get("AURICLE_KEYS") or environment.get("AURICLE_OPEN"):
        return
    raise ConfigError(
        "other machines could reach the service, and there is no key store",
        item=f"host {host}",
        mend="`auricle keys create`, or set AURICLE_OPEN=1 where the network itself is trusted",
    )


def told_host(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """The address that ``bentoml serve`` was told to listen on; None in any other process."""
    if list(arguments[1:2]) != ["serve"]:
        return None
    for at, argument in enumerate(arguments):
        if argument == "--host":
            return next(iter(arguments[at + 1 : at + 2]), None)
        if argument.startswith("--host="):
            return argument.partition("=")[2]
    return environment.get("BENTOML_HOST") or LOOPBACK


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_command(
    *,
    port: int = DEFAULT_PORT,
    host: str = LOOPBACK,
    target: str = SERVICE,
    tls: Tls | None = None,
) -> list[str]:
    """Arguments of the process; ``target`` may be a bento's folder or tag.

    Run it in the project's folder (a bento: anywhere), in a process group of its own.
    """
    command = [
        sys.executable, "-m", "bentoml", "serve", target, "--host", host, "--port", str(port),
        "--timeout-keep-alive", str(_KEEP_ALIVE_S),
    ]  # fmt: skip
    if tls is not None:
        command += tls.arguments()
    return command


def serve_environment(
    base: Mapping[str, str],
    *,
    bundle_dir: Path | None,
    bentoml_home: Path,
    priors_path: Path | None = None,
    model_version: str = "",
    model_aliases: Sequence[str] = (),
    jobs_dir: Path | None = None,
    keys_path: Path | None = None,
    records_dir: Path | None = None,
    page_key_path: Path | None = None,
    tls: Tls | None = None,
) -> dict[str, str]:
    """``base`` with the service's variables; ``bentoml_home`` is where BentoML keeps its state.

    Without ``bundle_dir`` the target is a bento, which carries its bundle and its code. An
    operator's own choice of aliases in ``base`` stands.
    """
    environment = dict(base)
    disable_vendor_telemetry(environment)
    environment["BENTOML_HOME"] = str(bentoml_home.absolute())
    if model_version:
        environment["AURICLE_MODEL_VERSION"] = model_version
    if model_aliases:
        environment.setdefault("AURICLE_MODEL_ALIASES", ",".join(model_aliases))
    if jobs_dir is not None:
        environment.setdefault("AURICLE_JOBS_DIR", str(jobs_dir.absolute()))
    if keys_path is not None:
        environment.setdefault("AURICLE_KEYS", str(keys_path.absolute()))
    if records_dir is not None:
        environment.setdefault("AURICLE_RECORDS", str(records_dir.absolute()))
    if page_key_path is not None:
        environment["AURICLE_PAGE_KEY"] = str(page_key_path.absolute())
    if tls is not None:
        environment[MINIMUM] = tls.minimum
    environment["AURICLE_PRIORS"] = str(priors_path.absolute()) if priors_path else ""
    environment.setdefault("OMP_NUM_THREADS", "1")
    keep_byte_code(environment, bentoml_home)
    if bundle_dir is not None:
        environment["AURICLE_BUNDLE"] = str(bundle_dir.absolute())
        # BentoML's workers do not have the folder it was started in on their path.
        paths = [str(Path.cwd()), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def keep_byte_code(environment: dict[str, str], folder: Path) -> None:
    """Where byte code is missing and may not be written beside the sources, keep it here.

    Compiling every import anew would take most of a cold start.
    """
    if environment.get("PYTHONDONTWRITEBYTECODE") and not _is_compiled("bentoml"):
        del environment["PYTHONDONTWRITEBYTECODE"]
        environment.setdefault("PYTHONPYCACHEPREFIX", str(folder.absolute() / "pycache"))


def _is_compiled(package: str) -> bool:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return False
    return (Path(found.origin).parent / "__pycache__").is_dir()
