"""Malformed requests, frames and recordings, each drawn from a seed and its own number.

A case is bytes on a socket: nothing between it and the service can make it well-formed again.
"""

import gzip
import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile

from tests.support_bundle import babble
from tests.support_service import opus, wav

CANARY = "kingfisher7391"
_ROUTES = ("/v1/audio/transcriptions", "/v1/jobs", "/v1/listen")
_JSON_ROUTES = ("/v1/jobs", "/v1/webhooks", "/v1/auth/grant")
_GETS = (
    "/v1/jobs", "/v1/models/", "/v1/jobs/", "/v1/webhooks/messages", "/v1/usage", "/v1/audio",
    "/v1/webhooks/", "/page/", "/",
)  # fmt: skip
_KEYS = (
    "model", "file", "url", "object", "metadata", "language", "webhook", "redact", "redact_mode",
    "ttl_seconds", "scopes", "stream", "prompt", "chunking_strategy", "timestamp_granularities[]",
)  # fmt: skip
_VALUES: tuple[object, ...] = (
    None, True, 0, -1, 10**30, 1e308, "", CANARY, "tiny", "\x00", "\ud800", "é" * 300, [], {}, [[]],
    {"a": {"b": []}}, "http://127.0.0.1:1/", "https://[::1", "file:///etc/passwd", "s3://", "9" * 500,
)  # fmt: skip
_QUERY = (
    "encoding", "sample_rate", "channels", "model", "language", "interim_results", "endpointing",
    "utterance_end_ms", "multichannel", "redact", "keyterm", "resumable", "vad_events", "speaker",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """What goes over one connection."""

    kind: str
    payload: bytes
    whole: bool = False  # a complete request: it must be answered
    frames: bytes = b""  # after the upgrade that ``payload`` asks for


def case(seed: int, number: int) -> Case:
    """The case of that number; the same for ever."""
    rng = random.Random(f"{seed}-{number}")
    return _KINDS[number % len(_KINDS)](rng)


def _bytes(rng: random.Random, most: int) -> bytes:
    return rng.randbytes(rng.randrange(most + 1))


def _bent(rng: random.Random, content: bytes) -> bytes:
    """A few wounds: flipped bits, cuts, doubled and inserted parts, numbers that claim too much."""
    held = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        at = rng.randrange(len(held) or 1)
        match rng.randrange(6):
            case 0 if held:
                held[at] ^= 1 << rng.randrange(8)
            case 1:
                del held[at:]
            case 2:
                held[at:at] = _bytes(rng, 64)
            case 3:
                held[at:at] = held[at : at + 500]
            case 4:
                claim = rng.choice((0, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)))
                held[at : at + 4] = struct.pack(rng.choice("<>") + "I", claim)
            case _:
                del held[at : at + rng.randrange(1, 200)]
    return bytes(held)


def _request(
    verb: str, path: str, headers: list[str], body: bytes = b"", *, length: int | None = None
) -> bytes:
    told = len(body) if length is None else length
    lines = [f"{verb} {path} HTTP/1.1", "Host: here", "Connection: close", *headers]
    lines += [f"Content-Length: {told}"]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def _form(rng: random.Random, content: bytes, fields: list[tuple[str, str]]) -> bytes:
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode(
            "utf-8", "surrogatepass"
        )
        for name, value in fields
    ]
    head = f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{CANARY}.wav"\r\n\r\n'
    parts.append(head.encode() + content + b"\r\n")
    rng.shuffle(parts)
    return b"".join(parts) + b"--edge--\r\n"


@cache
def _sounds() -> tuple[bytes, ...]:
    """Good recordings of every kind that clients send."""
    made = [wav(babble(0.6)), opus("ogg", babble(0.6)), opus("webm", babble(0.6))]
    for kind in ("FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"):
        sink = io.BytesIO()
        soundfile.write(sink, np.clip(babble(0.6), -1, 1), 16_000, format=kind)
        made.append(sink.getvalue())
    return tuple(made)


def _multipart(rng: random.Random) -> Case:
    fields = [("model", "tiny")]
    for _ in range(rng.choice((0, 0, 1, 3, 600))):
        value = rng.choice(_VALUES)
        fields.append((rng.choice((*_KEYS, CANARY, "")), value if isinstance(value, str) else "1"))
    body = _form(rng, _bytes(rng, 300), fields)
    if rng.random() < 0.7:
        body = _bent(rng, body)
    kind = rng.choice(
        (
            "multipart/form-data; boundary=edge", "multipart/form-data", "multipart/form-data; boundary=",
            "multipart/form-data; boundary=edge; charset=utf-7", "multipart/mixed; boundary=edge",
            "application/x-www-form-urlencoded", f"multipart/form-data; boundary={'e' * 3000}",
        )
    )  # fmt: skip
    path = rng.choice(_ROUTES[:2])
    headers = [f"Content-Type: {kind}"]
    if rng.random() < 0.2:
        length = rng.choice((0, 1, len(body) + 1000, 10**12))
        return Case(kind="multipart", payload=_request("POST", path, headers, body, length=length))
    return Case(kind="multipart", payload=_request("POST", path, headers, body), whole=True)


def _json_body(rng: random.Random) -> Case:
    value: object = {rng.choice(_KEYS): rng.choice(_VALUES) for _ in range(rng.randrange(5))}
    if rng.random() < 0.2:
        value = rng.choice(_VALUES)
    text = json.dumps(value).encode()
    if rng.random() < 0.4:
        text = _bent(rng, text)
    if rng.random() < 0.05:
        text = rng.choice((b"[" * 60_000, b'{"a":' * 9_000, b"9" * 60_000, b"NaN", b"\xff\xfe{"))
    headers = [
        "Content-Type: application/json",
        f"Idempotency-Key: {rng.choice(('', 'a', 'é', 'x' * 999))}",
    ]
    return Case(
        kind="json", payload=_request("POST", rng.choice(_JSON_ROUTES), headers, text), whole=True
    )


def _path(rng: random.Random) -> Case:
    odd = rng.choice(
        (
            "%00",
            "%ff",
            "..%2f..%2f",
            "%",
            "%zz",
            CANARY,
            "a" * 3000,
            "%ed%a0%80",
            "//",
            "?a=%00&limit=-1",
        )
    )
    verb = rng.choice(("GET", "GET", "DELETE", "POST", "PUT", "HEAD", "OPTIONS", "TRACE", "FROB"))
    path = (
        rng.choice(_GETS)
        + odd
        + rng.choice(("", "/events", "/result?response_format=%00", "/cancel"))
    )
    return Case(kind="path", payload=_request(verb, path, []), whole=True)


def _heads(rng: random.Random) -> Case:
    odd = [
        f"X-Auricle-Speaker: {CANARY}\x7f", "X-Big: " + "b" * rng.choice((10, 9_000, 70_000)),
        "Transfer-Encoding: chunked", "Content-Length: -1", "Expect: 100-continue", "Range: bytes=0-",
        "Content-Encoding: gzip", "Upgrade: websocket", "traceparent: 00-" + "f" * 99, "Authorization: \x01",
        "\x00: a", " folded", f"Cookie: {CANARY}", "Content-Type: a/b",
        "Origin: null", "Sec-WebSocket-Key: !",
    ]  # fmt: skip
    chosen = rng.sample(odd, rng.randrange(1, 5)) * rng.choice((1, 1, 1, 200))
    bomb = gzip.compress(b"0" * 3_000_000, 6) if rng.random() < 0.05 else b""
    chunks = rng.choice(
        (b"", b"ffffffff\r\n", b"5\r\nabc", b"zz\r\n\r\n", b"-1\r\n", b"0\r\n\r\n", bomb)
    )
    path = rng.choice((*_ROUTES, *_GETS))
    return Case(kind="headers", payload=_request(rng.choice(("GET", "POST")), path, chosen, chunks))


def _garbage(rng: random.Random) -> Case:
    start = rng.choice(
        (b"", b"GET ", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST / HTTP/9.9\r\n")
    )
    good = _request("GET", "/v1/models", [])
    return Case(kind="tcp", payload=rng.choice((start + _bytes(rng, 2_000), _bent(rng, good))))


def _upgrade(query: str) -> bytes:
    return (
        f"GET /v1/listen?{query} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode("latin-1", "replace")


def _frame(opcode: int, content: bytes, *, mask: bool = True, length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    head = struct.pack("!BBQ", opcode, (0x80 if mask else 0) | 127, size)
    return head + (b"\0\0\0\0" if mask else b"") + content


def _frames(rng: random.Random) -> Case:
    sent = []
    for _ in range(rng.randrange(1, 6)):
        opcode = rng.choice((0x81, 0x82, 0x01, 0x02, 0x80, 0x88, 0x89, 0x8A, 0x83, 0xF2, 0x8F))
        content = rng.choice(
            (
                _bytes(rng, 4_001), b"\xff\xfe", json.dumps({"type": CANARY}).encode(), b"{", b"",
                json.dumps({"type": rng.choice(_VALUES)}).encode(), b'{"type":"Finalize"}',
                b'{"type":"Configure"}', b"[" * 3_000, b"\x03\xe8" + b"\xff" * 130, b"\0" * 6_401,
                f'{{"type":"KeepAlive","{CANARY}":1}}'.encode(),
            )
        )  # fmt: skip
        length = rng.choice((None, None, None, None, 2**40, 2**63 - 1, 0, 1))
        sent.append(_frame(opcode, content, mask=rng.random() < 0.9, length=length))
    frames = b"".join(sent)
    return Case(
        kind="frames",
        payload=_upgrade("encoding=linear16&sample_rate=16000"),
        frames=_bent(rng, frames) if rng.random() < 0.3 else frames,
    )


def _listen(rng: random.Random) -> Case:
    odd = (
        "",
        "0",
        "-1",
        "1e9",
        "%00",
        "true",
        CANARY,
        "%ff",
        "99999999",
        "linear16",
        "opus",
        "16000",
        "²",
    )
    query = "&".join(f"{rng.choice(_QUERY)}={rng.choice(odd)}" for _ in range(rng.randrange(6)))
    return Case(kind="query", payload=_upgrade(query), frames=_frame(0x82, _bytes(rng, 99)))


def _audio(rng: random.Random) -> Case:
    content = _bent(rng, rng.choice(_sounds()))
    body = _form(rng, content, [("model", "tiny")])
    headers = ["Content-Type: multipart/form-data; boundary=edge"]
    return Case(kind="audio", payload=_request("POST", _ROUTES[0], headers, body), whole=True)


def _container(rng: random.Random) -> Case:
    content = _bent(rng, rng.choice(_sounds()[1:3]))
    frames = b"".join(_frame(0x82, content[at : at + 700]) for at in range(0, len(content), 700))
    end = _frame(0x81, b'{"type":"CloseStream"}')
    return Case(kind="container", payload=_upgrade("model=tiny"), frames=frames + end)


_KINDS: tuple[Callable[[random.Random], Case], ...] = (
    _multipart, _json_body, _path, _heads, _garbage, _frames, _listen, _audio, _container,
)  # fmt: skip
