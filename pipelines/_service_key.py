"""The development key of a workspace: with it the commands and the page need no setting up.

`auricle up` makes it once. It opens the service from its own machine only, lies in a file that its
owner alone may read, and is never printed.
"""

import getpass
import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from governance.errors import ConfigError
from pipelines import _paths as paths
from serving.tenants.access import access_ledger
from serving.tenants.caller import DEFAULT_TENANT, SCOPES
from serving.tenants.credentials import read_key
from serving.tenants.store import KeyStore

_NAME = "development"
VARIABLE = "AURICLE_API_KEY"


def ensure_development_key() -> Path:
    """The file of a key that works; made where there is none, or where it was revoked."""
    store = KeyStore(paths.API_KEYS, create=True)
    try:
        key = read_key(_text())
        kept = store.find(key.key_id) if key is not None else None
        if kept is None or kept.record.state(store.now()) != "active":
            issued = store.create(DEFAULT_TENANT, SCOPES, name=_NAME, near=True)
            body = {"tenant": DEFAULT_TENANT, "key": issued.record.id, "scopes": sorted(SCOPES)}
            access_ledger(paths.API_KEYS.parent).append(
                "key_created", body, actor=getpass.getuser()
            )
            _write(issued.text)
    finally:
        store.close()
    return paths.DEVELOPMENT_KEY


def service_key(url: str) -> str:
    """What a command shows to a service: the caller's own key, or on this machine the workspace's."""
    return os.environ.get(VARIABLE) or (_text() if _is_near(url) else "")


def _is_near(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text() -> str:
    path = paths.DEVELOPMENT_KEY
    if not path.exists():
        return ""
    if path.stat().st_mode & 0o077:
        raise ConfigError("others may read it", item=str(path), mend=f"chmod 600 '{path}'")
    return path.read_text(encoding="ascii").strip()


def _write(text: str) -> None:
    """In one step, and never readable by anybody else."""
    path = paths.DEVELOPMENT_KEY
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as sink:
        sink.write(f"{text}\n")
        sink.flush()
        os.fsync(sink.fileno())
    fresh.replace(path)
