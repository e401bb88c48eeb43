"""A minimal WebSocket server over the real sherpa-onnx: the peer of `benchmarks.streams`.

    python -m benchmarks._peer_server MODEL TOKENS SCALE HOP_S PORT

What people build who want streams and no platform: one recogniser, all streams that are ready in one
``decode_streams``, on one thread beside the event loop. No keys, no admission, no endpoints, no
language model. A stream is 16 kHz PCM16 and ends with the text ``Done``.
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import sherpa_onnx
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

_RATE_HZ = 16_000
_TAIL_HOPS = 2.5  # of silence after the end: sherpa-onnx runs whole chunks only


class Peer:
    """The recogniser and its open streams."""

    def __init__(self, model: str, tokens: str, scale: float, hop_s: float) -> None:
        """``hop_s`` of audio is decided with each chunk."""
        self._recognizer = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
            tokens=tokens, model=model, num_threads=1, sample_rate=_RATE_HZ, feature_dim=80
        )
        self._scale = scale / 32768.0
        self._hop_s = hop_s
        self._open: dict[Any, _Heard] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Decode what is ready, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while ready := [s for s in self._open if self._recognizer.is_ready(s)]:
                await asyncio.to_thread(self._recognizer.decode_streams, ready)
                for stream in ready:
                    heard = self._open.get(stream)
                    if heard is not None:
                        heard.seconds += self._hop_s
                        text = self._recognizer.get_result(stream)
                        await heard.tell(text, last=False)
            for heard in self._open.values():
                if heard.ended:
                    heard.decoded.set()

    async def converse(self, socket: ServerConnection) -> None:
        """One stream."""
        stream, heard = self._recognizer.create_stream(), _Heard(socket)
        self._open[stream] = heard
        try:
            async for content in socket:
                if isinstance(content, str):
                    break
                self._accept(stream, np.frombuffer(content, "<i2"))
            self._accept(stream, np.zeros(round(_TAIL_HOPS * self._hop_s * _RATE_HZ), np.int16))
            stream.input_finished()
            heard.ended = True
            self._news.set()
            await heard.decoded.wait()
            await heard.tell(self._recognizer.get_result(stream), last=True)
        finally:
            del self._open[stream]

    def _accept(self, stream: Any, samples_T: Any) -> None:
        stream.accept_waveform(_RATE_HZ, samples_T.astype(np.float32) * self._scale)
        self._news.set()


class _Heard:
    """How far one stream is."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self.seconds = 0.0
        self.ended = False
        self.decoded = asyncio.Event()

    async def tell(self, text: str, *, last: bool) -> None:
        """Send what is known."""
        message = {"heard_s": round(self.seconds, 3), "text": text, "last": last}
        with suppress(ConnectionClosed):  # its client has gone
            await self._socket.send(json.dumps(message))


async def main(model: str, tokens: str, scale: float, hop_s: float, port: int) -> None:
    """Serve on loopback until the process is ended."""
    peer = Peer(model, tokens, scale, hop_s)
    async with serve(peer.converse, "127.0.0.1", port):
        await peer.run()


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
    )
