"""Runs inside an environment of deepgram-sdk 5 or later: streams a PCM file, prints what it parsed.

python deepgram_5.py URL PCM_FILE QUERY_JSON
"""

import inspect
import json
import sys
import threading
from pathlib import Path

from deepgram import DeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment

CHUNK_BYTES = 6_400


def control(connection, kind):
    """7 has a method for each control message, 5 one for all."""
    if hasattr(connection, "send_control"):
        from deepgram.extensions.types.sockets import ListenV1ControlMessage

        connection.send_control(ListenV1ControlMessage(type=kind))
    else:
        method = {"Finalize": "finalize", "KeepAlive": "keep_alive", "CloseStream": "close_stream"}
        getattr(connection, f"send_{method[kind]}")()


def main(url: str, pcm_file: str, query: str) -> None:
    wanted = inspect.signature(DeepgramClientEnvironment.__init__).parameters
    places = {"base": url, "agent_rest": url}
    socket_url = "ws" + url.removeprefix("http")
    environment = DeepgramClientEnvironment(
        **{name: places.get(name, socket_url) for name in wanted if name != "self"}
    )
    client = DeepgramClient(api_key="unused", environment=environment)
    seen = []
    finalized = threading.Event()

    def keep(message):
        kind = getattr(message, "type", None)
        document = json.loads(message.model_dump_json()) if kind else {}
        seen.append([kind, type(message).__name__, document])
        if document.get("from_finalize"):
            finalized.set()

    pcm = Path(pcm_file).read_bytes()
    with client.listen.v1.connect(**json.loads(query)) as connection:
        connection.on(EventType.MESSAGE, keep)
        connection.on(EventType.ERROR, lambda error: seen.append(["Error", repr(error), {}]))
        listener = threading.Thread(target=connection.start_listening)
        listener.start()
        for at in range(0, len(pcm), CHUNK_BYTES):
            connection.send_media(pcm[at : at + CHUNK_BYTES])
        control(connection, "KeepAlive")
        control(connection, "Finalize")
        assert finalized.wait(60)
        control(connection, "CloseStream")
        listener.join(60)
    print(json.dumps(seen))


main(*sys.argv[1:])
