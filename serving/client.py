"""A small client of the service, for the command line and for tests.

Files go over plain HTTP (standard library), streams over a WebSocket (`websockets`, imported when
used). Answers are the service's own JSON.
"""

import http.client
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from governance.errors import AuricleError
from serving.schema import Transcript

_TIMEOUT_S = 600.0
_CLOSE_TIMEOUT_S = 60.0


class ServiceError(AuricleError):
    """The service refused, failed, or is not there."""


@dataclass(kw_only=True)
class StreamResult:
    """What a live stream answered."""

    finals: list[dict[str, Any]] = field(default_factory=list)  # Results with is_final
    partials: int = 0
    metadata: dict[str, Any] | None = None
    close_code: int | None = None

    @property
    def text(self) -> str:
        """The final text of the whole stream."""
        texts = (final["channel"]["alternatives"][0]["transcript"] for final in self.finals)
        return " ".join(text for text in texts if text)


@dataclass(frozen=True, kw_only=True)
class Client:
    """Talks to one service."""

    url: str = "http://127.0.0.1:3000"
    timeout_s: float = _TIMEOUT_S
    api_key: str = field(default="", repr=False)

    def is_ready(self) -> bool:
        """Whether the service takes work."""
        try:
            return self._request("GET", "/readyz", None, {})[0] == 200
        except ServiceError:
            return False

    def wait_ready(self, limit_s: float, *, alive: Callable[[], bool] = lambda: True) -> None:
        """Return once the service is ready; raise when it is not in time, or its process ended."""
        end = time.monotonic() + limit_s
        while not self.is_ready():
            if not alive():
                raise ServiceError("the service's process ended", item=self.url)
            if time.monotonic() > end:
                raise ServiceError(f"not ready within {limit_s:g} s", item=self.url)
            time.sleep(0.1)

    def models(self) -> list[dict[str, Any]]:
        """What the service can run."""
        status, body = self._request("GET", "/v1/models", None, {})
        return list(_checked(status, body, "/v1/models")["data"])

    def transcribe(self, path: Path, *, model: str, speaker: str | None = None) -> Transcript:
        """Send a file; the whole transcript comes back."""
        fields = [
            ("model", model),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "word"),
            ("timestamp_granularities[]", "segment"),
        ]
        content_type, body = _multipart(fields, path)
        headers = {"Content-Type": content_type}
        if speaker:
            headers["X-Auricle-Speaker"] = speaker
        status, answer = self._request("POST", "/v1/audio/transcriptions", body, headers)
        return Transcript.model_validate(_checked(status, answer, path.name)["auricle"])

    def stream(
        self,
        pcm: bytes,
        *,
        rate_hz: int,
        channels: int = 1,
        chunk_ms: float = 100.0,
        paced: bool = False,
        parameters: Mapping[str, str] | None = None,
        on_message: Callable[[dict[str, Any]], None] = lambda message: None,
    ) -> StreamResult:
        """Send linear16 samples over the WebSocket, at once or at the speed of speech."""
        from websockets.exceptions import ConnectionClosed
        from websockets.sync.client import connect

        query = {"encoding": "linear16", "sample_rate": rate_hz, "channels": channels}
        query |= {"interim_results": "true", **(parameters or {})}
        address = f"ws{self.url.removeprefix('http')}/v1/listen?{urlencode(query)}"
        result = StreamResult()
        options: Any = {"close_timeout": _CLOSE_TIMEOUT_S, "max_size": None}
        with connect(address, additional_headers=self._credentials(), **options) as socket:
            size = max(1, round(rate_hz * chunk_ms / 1000)) * 2 * channels
            try:
                for at in range(0, len(pcm), size):
                    socket.send(pcm[at : at + size])
                    if paced:
                        _receive_for(socket, chunk_ms / 1000, result, on_message)
                socket.send(json.dumps({"type": "CloseStream"}))
                for message in socket:
                    book(json.loads(message), result, on_message)
            except ConnectionClosed:
                pass
        result.close_code = socket.close_code
        return result

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=self.timeout_s)
        try:
            connection.request(method, path, body=body, headers={**headers, **self._credentials()})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(
                f"no answer ({type(error).__name__})", item=self.url, mend="make up"
            ) from error
        finally:
            connection.close()


def _receive_for(
    socket: Any, seconds: float, result: StreamResult, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Take what arrives during the time that the audio would last."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            message = socket.recv(timeout=left)
        except TimeoutError:
            return
        book(json.loads(message), result, tell)


def book(
    message: dict[str, Any], result: StreamResult, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Keep what a message says, and tell whoever listens."""
    if message["type"] == "Metadata":
        result.metadata = message
    elif message.get("is_final"):
        result.finals.append(message)
    elif message["type"] == "Results":
        result.partials += 1
    tell(message)


def _checked(status: int, body: bytes, item: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        raise ServiceError(f"answered {status} without JSON", item=item) from None
    if status != 200:
        message = document.get("error", {}).get("message", "no reason given")
        raise ServiceError(f"the service answered {status}: {message}", item=item)
    return dict(document)


def _multipart(fields: list[tuple[str, str]], path: Path) -> tuple[str, bytes]:
    boundary = secrets.token_hex(16)
    name = path.name.replace('"', "_").replace("\r", "_").replace("\n", "_")
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields
    ]
    head = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    opening = f"--{boundary}\r\n{head}\r\nContent-Type: application/octet-stream\r\n\r\n"
    body = b"".join(parts) + opening.encode() + path.read_bytes() + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()
