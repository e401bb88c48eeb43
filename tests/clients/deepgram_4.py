"""Runs inside an environment of deepgram-sdk 4: streams a PCM file, prints what the SDK parsed.

python deepgram_4.py URL PCM_FILE QUERY_JSON
"""

import json
import sys
import threading
from pathlib import Path

from deepgram import DeepgramClient, DeepgramClientOptions, LiveOptions, LiveTranscriptionEvents

CHUNK_BYTES = 6_400


def main(url: str, pcm_file: str, query: str) -> None:
    client = DeepgramClient("unused", DeepgramClientOptions(url=url))
    connection = client.listen.websocket.v("1")
    seen = []
    finalized, over = threading.Event(), threading.Event()

    def keep(kind, name):
        def handle(_, **fields):
            document = fields[name].to_dict()
            seen.append([kind, type(fields[name]).__name__, document])
            if document.get("from_finalize"):
                finalized.set()
            if kind in ("Metadata", "Close"):
                over.set()

        return handle

    events = LiveTranscriptionEvents
    for event, kind, name in (
        (events.Transcript, "Results", "result"),
        (events.Metadata, "Metadata", "metadata"),
        (events.SpeechStarted, "SpeechStarted", "speech_started"),
        (events.UtteranceEnd, "UtteranceEnd", "utterance_end"),
        (events.Error, "Error", "error"),
        (events.Unhandled, "Unhandled", "unhandled"),
    ):
        connection.on(event, keep(kind, name))
    assert connection.start(LiveOptions(**json.loads(query)))
    pcm = Path(pcm_file).read_bytes()
    for at in range(0, len(pcm), CHUNK_BYTES):
        assert connection.send(pcm[at : at + CHUNK_BYTES])
    assert connection.keep_alive()
    assert connection.finalize()
    assert finalized.wait(60)
    assert connection.send(json.dumps({"type": "CloseStream"}))
    assert over.wait(60)
    connection.finish()
    print(json.dumps(seen))


main(*sys.argv[1:])
