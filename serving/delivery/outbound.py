"""An HTTP client that goes only where it may, and reads only as much as it was told.

A name is resolved once; every address must be allowed; the connection goes to the address that was
checked, with the Host header and TLS name of the URL. So a name that answers differently the second
time gains nothing. No redirect is followed, no proxy and no environment variable is read.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h11

from governance.errors import AuricleError
from serving.delivery.addresses import Opening, Place, may_reach

Resolver = Callable[[str, int], Awaitable[list[str]]]
_BLOCK_BYTES = 1 << 16
_MAX_HEAD_BYTES = 1 << 15


class OutboundError(AuricleError):
    """The other side could not be reached, or answered what we do not read; names no content."""


class AnswerTooLarge(OutboundError):
    """The answer is longer than it may be; it will not be shorter the next time."""


@dataclass(frozen=True, kw_only=True)
class OutboundPolicy:
    """Where connections may go, and how certificates are judged."""

    openings: tuple[Opening, ...] = ()
    ca_file: Path | None = None  # certificates of a private authority, besides the system's


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status and headers; the body went to the sink."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request."""

    method: str
    place: Place
    headers: Mapping[str, str]
    body: bytes = b""


async def system_resolver(host: str, port: int) -> list[str]:
    """Every address of a name, in the system's order."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Outbound:
    """Makes calls under one policy."""

    def __init__(self, policy: OutboundPolicy, *, resolver: Resolver = system_resolver) -> None:
        self.policy = policy
        self._resolver = resolver
        self._tls = ssl.create_default_context()
        if policy.ca_file is not None:
            self._tls.load_verify_locations(policy.ca_file)

    async def call(
        self,
        call: Call,
        *,
        timeout_s: float,
        max_bytes: int = 0,
        sink: Callable[[bytes], object] | None = None,
    ) -> Answer:
        """Send and read the answer; the time is that of the whole exchange, trickling or not.

        Without a sink the body is not read.
        """
        try:
            async with asyncio.timeout(timeout_s):
                address = await self._checked_address(call.place)
                return await self._exchange(call, address, max_bytes, sink)
        except TimeoutError:
            raise OutboundError(f"no complete answer within {timeout_s:g} s") from None
        except ssl.SSLError as error:
            raise OutboundError(f"no trusted TLS connection ({type(error).__name__})") from None
        except (OSError, h11.ProtocolError) as error:
            raise OutboundError(f"no answer ({type(error).__name__})") from None

    async def _checked_address(self, place: Place) -> str:
        """The first of a name's addresses, if all of them may be reached."""
        try:
            addresses = await self._resolver(place.host, place.port)
        except (OSError, UnicodeError):
            raise OutboundError("the host's name cannot be resolved") from None
        allowed = [may_reach(a, place.port, self.policy.openings) for a in addresses]
        if not addresses or not all(allowed):
            raise OutboundError("the host's address is not one that this service may reach")
        return addresses[0]

    async def _exchange(
        self, call: Call, address: str, max_bytes: int, sink: Callable[[bytes], object] | None
    ) -> Answer:
        secure = call.place.scheme == "https"
        reader, writer = await asyncio.open_connection(
            address,
            call.place.port,
            ssl=self._tls if secure else None,
            server_hostname=call.place.host if secure else None,
        )
        try:
            machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
            writer.write(_request_bytes(machine, call))
            await writer.drain()
            return await _read_answer(machine, reader, max_bytes, sink)
        finally:
            writer.transport.abort()  # nobody waits for a polite end of what was read


def _request_bytes(machine: h11.Connection, call: Call) -> bytes:
    headers = {
        "Host": call.place.host_header,
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Length": str(len(call.body)),
        **call.headers,
    }
    request = h11.Request(
        method=call.method, target=call.place.target, headers=list(headers.items())
    )
    parts = (
        machine.send(request),
        machine.send(h11.Data(data=call.body)) if call.body else b"",
        machine.send(h11.EndOfMessage()),
    )
    return b"".join(part or b"" for part in parts)


async def _read_answer(
    machine: h11.Connection,
    reader: asyncio.StreamReader,
    max_bytes: int,
    sink: Callable[[bytes], object] | None,
) -> Answer:
    answer: Answer | None = None
    read_bytes = 0
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            machine.receive_data(await reader.read(_BLOCK_BYTES))
        elif isinstance(event, h11.Response):
            headers = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers
            }
            answer = Answer(status=event.status_code, headers=headers)
            if sink is None:
                return answer
            if headers.get("content-encoding", "identity") != "identity":
                raise OutboundError("the answer is compressed, which was not asked for")
        elif isinstance(event, h11.Data):
            assert sink is not None
            read_bytes += len(event.data)
            if read_bytes > max_bytes:
                raise AnswerTooLarge(f"the answer is larger than {max_bytes} bytes")
            sink(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert answer is not None
            return answer
        elif isinstance(event, h11.ConnectionClosed):
            raise OutboundError("the connection was closed before an answer")
