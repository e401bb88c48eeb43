"""What the tests of live streams say and hear."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from starlette.websockets import WebSocketDisconnect

from tests.support_bundle import babble, hush

SPEECH = np.concatenate([babble(3.0), hush(1.5), babble(1.6, seed=5)])
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000"
CLOSE = json.dumps({"type": "CloseStream"})
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "streams.md").read_text()


def until_closed(socket: Any) -> tuple[list[dict[str, Any]], int]:
    messages = []
    while True:
        try:
            messages.append(socket.receive_json())
        except WebSocketDisconnect as end:
            return messages, end.code


def transcripts(messages: list[dict[str, Any]]) -> list[str]:
    return [
        message["channel"]["alternatives"][0]["transcript"]
        for message in messages
        if message["type"] == "Results" and message["is_final"]
    ]
