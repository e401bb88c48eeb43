"""Clients that never rest while the model is changed, and what each reply said of its model."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
from websockets.sync.client import connect

_STEP_S = 0.1
_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answered file or ended stream."""

    kind: str  # file or stream
    began_s: float
    ended_s: float
    versions: frozenset[str]  # that the reply named, in all its places


@dataclass(kw_only=True)
class Load:
    """Files and streams without a break, from threads of this process."""

    url: str
    sound: bytes  # a WAV file
    pcm: bytes  # 16 kHz, 16 bits, mono
    clients: int = 3
    replies: list[Reply] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unready: int = 0  # times that the service said it was not ready
    long_stream: Reply | None = None  # open from the first swap to the last
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        calls = [self._file] * self.clients + [self._stream, self._ready]
        for call in calls:
            self._begin(partial(self._again, call))
        self._begin(self._whole_time)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_LIMIT_S)

    def await_replies(self, more: int) -> None:
        """Until so many replies have come that began after now."""
        now, ends = time.monotonic(), time.monotonic() + _LIMIT_S
        while sum(reply.began_s >= now for reply in list(self.replies)) < more:
            if time.monotonic() > ends or self.failures:
                raise RuntimeError(f"no replies: {self.failures[:3]}")
            time.sleep(0.01)

    def _begin(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _again(self, call: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                call()
            except Exception as error:
                self.failures.append(f"{call.__name__}: {type(error).__name__}: {error}")

    def _file(self) -> None:
        began_s = time.monotonic()
        answer = httpx.post(
            f"{self.url}/v1/audio/transcriptions",
            files={"file": ("sound.wav", self.sound)},
            data={"model": "auricle", "response_format": "verbose_json"},
            timeout=_LIMIT_S,
        )
        if answer.status_code != 200:
            raise RuntimeError(f"status {answer.status_code}: {answer.text[:200]}")
        body = answer.json()
        names = {
            answer.headers["openai-model"].partition("@")[2],
            body["model"].partition("@")[2],
            body["auricle"]["model"]["version"],
        }
        self._book("file", began_s, names)

    def _ready(self) -> None:
        answer = httpx.get(f"{self.url}/readyz", timeout=_LIMIT_S)
        self.unready += answer.status_code != 200
        self._over.wait(_STEP_S)

    def _stream(self) -> None:
        began_s = time.monotonic()
        names = self._talk(lambda socket: socket.send(self.pcm))
        self._book("stream", began_s, names)

    def _whole_time(self) -> None:
        step = int(_STEP_S * 32_000)

        def speak(socket: Any) -> None:
            at = 0
            while not self._over.wait(_STEP_S):
                socket.send(self.pcm[at : at + step])
                at = (at + step) % (len(self.pcm) - step)

        began_s = time.monotonic()
        try:
            names = self._talk(speak)
        except Exception as error:
            self.failures.append(f"long stream: {type(error).__name__}: {error}")
            return
        self.long_stream = Reply(
            kind="stream", began_s=began_s, ended_s=time.monotonic(), versions=frozenset(names)
        )

    def _talk(self, speak: Callable[[Any], None]) -> set[str]:
        """Every version that a stream's messages named."""
        names: set[str] = set()
        ended: list[dict[str, Any]] = []
        address = f"ws{self.url.removeprefix('http')}/v1/listen?encoding=linear16&sample_rate=16000"
        with connect(address, max_size=None, open_timeout=_LIMIT_S) as socket:

            def read() -> None:
                for text in socket:
                    message = json.loads(text)
                    if message["type"] == "Results":
                        names.add(message["metadata"]["model_info"]["version"])
                    elif message["type"] == "Metadata":
                        names.update(one["version"] for one in message["model_info"].values())
                        ended.append(message)

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            speak(socket)
            socket.send('{"type": "CloseStream"}')
            reader.join(_LIMIT_S)
        if not ended:
            raise RuntimeError(f"no Metadata; closed with {socket.protocol.close_code}")
        return names

    def _book(self, kind: str, began_s: float, names: set[str]) -> None:
        self.replies.append(
            Reply(kind=kind, began_s=began_s, ended_s=time.monotonic(), versions=frozenset(names))
        )
