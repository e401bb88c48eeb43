"""A live stream from the caller's side: audio goes out as it comes, messages are told at once.

Asynchronous, so that one process can hold many paced streams: `auricle listen` holds one,
`auricle bench serve` as many as it is asked for.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from serving.client import ServiceError

Message = Mapping[str, Any]
_CLOSE_TIMEOUT_S = 60.0
_BYTES_PER_SAMPLE = 2


@dataclass(kw_only=True)
class Talk:
    """What happened on one stream; seconds are of `time.perf_counter`."""

    began_s: float = 0.0  # when the connection stood: the clock of a paced stream
    sent_s: float = 0.0  # when the last audio was sent
    ended_s: float = 0.0  # when the server had closed
    audio_s: float = 0.0  # sent
    close_code: int | None = None
    metadata: Message | None = None
    finals: list[Message] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What became final."""
        said = (final["channel"]["alternatives"][0]["transcript"] for final in self.finals)
        return " ".join(part for part in said if part)


async def converse(
    url: str,
    blocks: AsyncIterator[bytes],
    *,
    rate_hz: int,
    api_key: str = "",
    parameters: Mapping[str, str] | None = None,
    tell: Callable[[Message, Talk], None] = lambda message, talk: None,
) -> Talk:
    """Send linear16 mono until ``blocks`` end, then wait for the last result.

    A refusal before the upgrade and a service that is not there raise `ServiceError`.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    query = {"encoding": "linear16", "sample_rate": str(rate_hz), "interim_results": "true"}
    address = f"ws{url.removeprefix('http')}/v1/listen?{urlencode(query | dict(parameters or {}))}"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    talk, failures = Talk(), list[Exception]()  # of the source of the audio
    try:
        async with connect(
            address,
            additional_headers=headers,
            max_size=None,
            proxy=None,
            compression=None,
            close_timeout=_CLOSE_TIMEOUT_S,
        ) as socket:
            talk.began_s = time.perf_counter()
            sending = asyncio.create_task(_send(socket, blocks, rate_hz, talk, failures))
            try:
                async for text in socket:
                    _book(json.loads(text), talk, tell)
            except ConnectionClosed:
                pass
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    except InvalidStatus as refusal:
        reason = refusal.response.headers.get("dg-error", "no reason given")
        status = refusal.response.status_code
        raise ServiceError(f"the service answered {status}: {reason}", item=url) from None
    except (OSError, TimeoutError) as error:
        raise ServiceError(
            f"no answer ({type(error).__name__})", item=url, mend="make up"
        ) from None
    if failures:
        raise failures[0]
    talk.ended_s = time.perf_counter()
    talk.close_code = socket.close_code
    return talk


async def _send(
    socket: Any, blocks: AsyncIterator[bytes], rate_hz: int, talk: Talk, failures: list[Exception]
) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        async for block in blocks:
            await socket.send(block)
            talk.audio_s += len(block) / _BYTES_PER_SAMPLE / rate_hz
            talk.sent_s = time.perf_counter()
        await socket.send(json.dumps({"type": "CloseStream"}))
    except ConnectionClosed:
        return  # the reader tells how it ended
    except Exception as error:
        failures.append(error)
        await socket.close()  # no more audio will come: the reader must not wait for it


async def paced(pcm: bytes, *, rate_hz: int, block_ms: float = 100.0) -> AsyncIterator[bytes]:
    """Blocks at the speed of speech, each when its last sample would have been spoken."""
    size = max(1, round(rate_hz * block_ms / 1000)) * _BYTES_PER_SAMPLE
    began_s = time.perf_counter()
    for at in range(0, len(pcm), size):
        block = pcm[at : at + size]
        due_s = began_s + (at + len(block)) / _BYTES_PER_SAMPLE / rate_hz
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        yield block


def _book(message: Message, talk: Talk, tell: Callable[[Message, Talk], None]) -> None:
    if message["type"] == "Metadata":
        talk.metadata = message
    elif message.get("is_final"):
        talk.finals.append(message)
    tell(message, talk)
