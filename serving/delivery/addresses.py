"""Which addresses the service may connect to on a caller's word: global ones, and no others.

A caller who can name a URL must not reach what only this machine can reach: loopback, the private
network, a cloud's metadata. So every address that a name stands for is judged, after it has been
taken out of the forms in which IPv6 carries IPv4. An operator may open a network and port.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from governance.errors import ConfigError
from serving.problems import ApiProblem

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# IANA's special-purpose registries; `is_global` of the standard library changed between releases.
_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_URL_CHARACTERS = 2048
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A network and port that the operator allows besides global addresses."""

    network: IPNetwork
    port: int

    def holds(self, address: IPAddress, port: int) -> bool:
        """Whether it opens the way to this address."""
        return port == self.port and address.version == self.network.version and (
            address in self.network
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Place:
    """A checked URL in parts."""

    scheme: str
    host: str  # ASCII, lower case, without brackets
    port: int
    target: str  # path and query

    @property
    def host_header(self) -> str:
        """The host as HTTP names it."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


def parse_openings(text: str) -> tuple[Opening, ...]:
    """``CIDR:PORT`` separated by commas, such as ``127.0.0.1/32:8080,[fd00::/8]:443``."""
    openings = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        network, _, port = item.rpartition(":")
        try:
            parsed = ipaddress.ip_network(network.strip("[]"))
            openings.append(Opening(network=parsed, port=int(port)))
        except ValueError:
            raise ConfigError(
                "is not CIDR:PORT", item=item, mend="such as 10.0.0.0/8:443"
            ) from None
    return tuple(openings)


def plain_address(text: str) -> IPAddress | None:
    """The address that packets would go to; None where that cannot be said."""
    try:
        address: IPAddress = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.scope_id or address.teredo:
        return None
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def may_reach(text: str, port: int, openings: tuple[Opening, ...]) -> bool:
    """Whether a connection to this address and port is allowed."""
    address = plain_address(text)
    if address is None:
        return False
    if any(opening.holds(address, port) for opening in openings):
        return True
    return port == 443 and _is_global(address)


def _is_global(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _UNICAST_V6 and not any(address in network for network in _SPECIAL_V6)


def parse_url(url: str, openings: tuple[Opening, ...], *, param: str) -> Place:
    """Take a caller's URL apart once; what is odd about it is refused, not repaired."""

    def refused(why: str) -> ApiProblem:
        return ApiProblem(400, f"`{param}` {why}.", param=param, code="invalid_url")

    if len(url) > _URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise refused(f"must be at most {_URL_CHARACTERS} printable ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").lower()
    except ValueError:
        raise refused("is no URL") from None
    if parts.scheme not in _DEFAULT_PORTS or "\\" in url or not host or "%" in host:
        raise refused("must be an https URL with a host")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise refused("must not carry a user name or password")
    if parts.fragment or host.endswith("."):
        raise refused("must not have a fragment or a host that ends with a dot")
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    opened = {opening.port for opening in openings}
    if port not in opened and (parts.scheme != "https" or port != 443):
        raise refused("must be https on port 443")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    return Place(scheme=parts.scheme, host=host, port=port, target=target)
