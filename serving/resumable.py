"""A live stream that survives its connection: the client's half of `serving.streaming.resume`.

    with ResumableStream("http://127.0.0.1:3000", rate_hz=16_000) as live:
        for piece in microphone:
            live.send(piece)
    print(live.result.text)

It keeps the audio that the service may ask for again, at most 30 s of it: a sender that is faster
than the service waits. Reconnecting is its own affair; words and times are those of a stream that
was never cut.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from serving.client import ServiceError, StreamResult, book

_KEPT_S = 30.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
_CLOSE_TIMEOUT_S = 5.0
_MESSAGE_BYTES = 1 << 16
_FRUITLESS = 20  # connections in a row that end before anything new was told
_REFUSALS = (1003, 1007, 1008, 1009)  # close codes after which the same bytes would fail again
_RETRIED = (429, 500, 502, 503, 504)


class ResumableStream:
    """One stream of raw audio. Used from one thread; it reads on another."""

    def __init__(
        self,
        url: str,
        *,
        rate_hz: int,
        channels: int = 1,
        encoding: str = "linear16",
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        on_message: Callable[[dict[str, Any]], None] = lambda message: None,
        patience_s: float = 60.0,
    ) -> None:
        """``patience_s`` is how long the service may be out of reach."""
        query = {"encoding": encoding, "sample_rate": rate_hz, "channels": channels}
        query |= {"interim_results": "true", "resumable": "true", **(parameters or {})}
        self._address = f"ws{url.removeprefix('http')}/v1/listen?{urlencode(query)}"
        self._headers = dict(headers or {})
        self._on_message, self._patience_s = on_message, patience_s
        sample_bytes = 2 if encoding == "linear16" else 1
        self._most_kept = round(_KEPT_S * rate_hz) * sample_bytes * channels
        self._news = threading.Condition()
        self._kept, self._kept_from = bytearray(), 0  # audio that may be asked for again
        self._sent = 0  # bytes, on the connection that is open now
        self._finalizes: list[int] = []  # the byte before which each one was asked for
        self._finalized = 0  # of these, given to the connection that is open now
        self._heard = 0  # of these, whose final results have come
        self._answered = 0  # of these, before the last place
        self._answered_before = 0  # when the session began
        self._session, self._seq = "", 0
        self._place, self._place_seq = "", 0  # of the last final result
        self._socket: Any = None
        self._broken = True
        self._fruitless = 0  # connections in a row that told nothing new
        self._code: int | None = None
        self._reason = ""
        self.reconnections = -1  # the first connection is none
        self.result = StreamResult()

    def __enter__(self) -> "ResumableStream":
        self._connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif self._socket is not None:
            self._socket.close()

    def send(self, content: bytes) -> None:
        """Send audio in any cut; waits while the service is behind by more than 30 s."""
        with self._news:
            self._kept += content
        self._pump()

    def finalize(self) -> None:
        """Ask for a final result of everything sent so far."""
        with self._news:
            self._finalizes.append(self._total)
        self._pump()

    def close(self) -> StreamResult:
        """End the stream; gives everything that the service said."""
        while not self._ended:
            self._pump()
            if self._say(json.dumps({"type": "CloseStream"})):
                with self._news:
                    self._news.wait_for(lambda: self._broken)
        self._socket.close()
        self.result.close_code = self._code
        return self.result

    @property
    def _total(self) -> int:
        return self._kept_from + len(self._kept)

    @property
    def _ended(self) -> bool:
        """Whether the service said its last word; a stopping process' is provisional."""
        metadata = self.result.metadata
        return metadata is not None and not metadata["auricle"].get("provisional", False)

    def _pump(self) -> None:
        """Send what was not sent, reconnecting as often as needed."""
        while True:
            with self._news:
                through = self._sent == self._total and self._finalized == len(self._finalizes)
                if self._ended or (through and not self._broken):
                    return
                self._news.wait_for(
                    lambda: self._broken or self._sent - self._kept_from < self._most_kept
                )
                step = None if self._broken else self._next()
            if step is None:
                self._connect()
            elif isinstance(step, int):
                if self._say(json.dumps({"type": "Finalize"})):
                    self._finalized += 1
            elif self._say(step):
                self._sent += len(step)

    def _next(self) -> bytes | int:
        """The next bytes, up to the next Finalize; or that it is due."""
        due = self._finalizes[self._finalized :]
        if due and due[0] <= self._sent:
            return 0
        most = min(self._sent + _MESSAGE_BYTES, self._kept_from + self._most_kept)
        end = min(due[0] if due else self._total, most)
        return bytes(self._kept[self._sent - self._kept_from : end - self._kept_from])

    def _say(self, message: bytes | str) -> bool:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(message)
        except (ConnectionClosed, OSError):
            with self._news:
                self._broken = True
            return False
        return True

    def _connect(self) -> None:
        """Open the connection, again and again within the patience."""
        if self._code in _REFUSALS:
            raise ServiceError(f"the service ended the stream: {self._reason}")
        if self._fruitless > _FRUITLESS:
            raise ServiceError(f"the stream does not go on: {self._reason or 'connection lost'}")
        end, wait_s = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        while (problem := self._try_to_connect()) is not None:
            if time.monotonic() + wait_s > end:
                raise ServiceError(f"no connection for a live stream ({problem})", mend="make up")
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _try_to_connect(self) -> str | None:
        """Connect once; gives what was wrong where another try may help."""
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect

        headers = {**self._headers, "x-auricle-seq": str(self._seq)}
        if self._session:
            headers["x-auricle-session"] = self._session
        if self._place:
            headers["x-auricle-resume"] = self._place
        try:
            # Entered by hand: the connection outlives this function, `_socket.close` ends it.
            socket = connect(
                self._address, additional_headers=headers, close_timeout=_CLOSE_TIMEOUT_S,
                max_size=None, compression=None,
            ).__enter__()  # fmt: skip
        except InvalidStatus as error:
            status = error.response.status_code
            if status in _RETRIED:
                return f"status {status}"
            told = error.response.headers.get("dg-error", "")
            raise ServiceError(f"the service answered {status}: {told}") from error
        except (InvalidHandshake, OSError, EOFError) as error:
            return type(error).__name__
        self._take_over(socket)
        return None

    def _take_over(self, socket: Any) -> None:
        said = socket.response.headers
        session, begin = said["x-auricle-session"], int(said["x-auricle-resume-from-byte"])
        with self._news:
            if not self._kept_from <= begin <= self._total:
                socket.close()
                raise ServiceError(f"the service asks for byte {begin}, which is not kept")
            if session != self._session:
                self._begin_anew()
            self._session, self._socket, self._sent = session, socket, begin
            self._finalized = self._answered_before + int(said["x-auricle-finalizes"])
            self._broken, self._code, self._reason = False, None, ""
            self._fruitless += 1
            self.reconnections += 1
        threading.Thread(target=self._read, args=(socket,), daemon=True).start()

    def _begin_anew(self) -> None:
        """A process that does not know the stream goes on from the last place: what came since then
        (provisional, or held back by a redaction) is told again.
        """
        self._seq = self._place_seq
        self._heard = self._answered_before = self._answered
        self.result.metadata = None
        self.result.finals = [
            final for final in self.result.finals if final["auricle"]["seq"] <= self._place_seq
        ]

    def _read(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for message in socket:
                self._hear(json.loads(message))
        except (ConnectionClosed, OSError):
            pass
        with self._news:
            if socket is self._socket:
                self._broken, self._code = True, socket.close_code
                self._reason = socket.close_reason or ""
                self._news.notify_all()

    def _hear(self, message: dict[str, Any]) -> None:
        with self._news:
            facts = message.get("auricle", {})
            seq = facts.get("seq")
            if seq is not None and seq <= self._seq:
                return
            if seq is not None:
                self._seq, self._fruitless = seq, 0
            if message.get("from_finalize"):
                channel, channels = message["channel_index"]
                self._heard += channel == channels - 1
            if (ack := facts.get("ack_byte")) is not None:
                del self._kept[: max(0, ack - self._kept_from)]
                self._kept_from = max(self._kept_from, ack)
                self._place, self._place_seq = facts["resume"], self._seq
                self._answered = self._heard
            book(message, self.result, self._on_message)
            self._news.notify_all()
