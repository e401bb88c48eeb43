"""The development key for the page, so that nobody has to type it on their own machine.

It is handed out over loopback only, under a loopback name (so no rebound name gets it), to a page of
our own, and only where the connection's other end belongs to the user who runs the service: another
user of the machine may not read the key's file either. Where that cannot be seen, nothing is given.
"""

import ipaddress
import os
import socket
import sys
from pathlib import Path

from starlette.requests import Request

_TABLES = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}
_LOCAL, _REMOTE, _STATE, _USER = 1, 2, 3, 7  # columns of the kernel's tables
_ESTABLISHED = "01"


def key_for(request: Request, path: Path | None) -> str | None:
    """The key in the operator's file, if the page that asks is the operator's own."""
    if path is None or not _may_have_it(request):
        return None
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _may_have_it(request: Request) -> bool:
    client, server = request.scope.get("client"), request.scope.get("server")
    if not client or not server or request.headers.get("sec-fetch-site") != "same-origin":
        return False
    if not _is_loopback_name(request.url.hostname or ""):
        return False
    try:
        return _user_of((client[0], client[1]), (server[0], server[1])) == os.getuid()
    except (OSError, ValueError):
        return False


def _is_loopback_name(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _user_of(peer: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """Who holds the other end of a connection between two loopback addresses."""
    if not all(ipaddress.ip_address(host).is_loopback for host, _ in (peer, ours)):
        return None
    wanted = (_as_kernel(*peer), _as_kernel(*ours), _ESTABLISHED)
    table = _TABLES[ipaddress.ip_address(peer[0]).version]
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        columns = line.split()
        if (columns[_LOCAL], columns[_REMOTE], columns[_STATE]) == wanted:
            return int(columns[_USER])
    return None


def _as_kernel(host: str, port: int) -> str:
    """``0100007F:1F90``: words of the address in the machine's byte order."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host)
    words = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
