"""Runs inside an environment of an older openai package: sends a file, prints what the SDK parsed.

python openai_1.py BASE_URL AUDIO_FILE
"""

import inspect
import json
import sys
from pathlib import Path

import openai


def main(url: str, audio_file: str) -> None:
    client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0)

    def ask(**fields):
        with Path(audio_file).open("rb") as sound:
            return client.audio.transcriptions.create(file=sound, model="whisper-1", **fields)

    verbose = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    seen = {
        "version": openai.__version__,
        "models": [model.id for model in client.models.list()],
        "json": ask().text,
        "text": ask(response_format="text"),
        "srt": ask(response_format="srt"),
        "vtt": ask(response_format="vtt"),
        "verbose": verbose.model_dump(),
    }
    try:
        ask(temperature=0.7)
    except openai.BadRequestError as error:
        seen["refused"] = error.param
    if "stream" in inspect.signature(client.audio.transcriptions.create).parameters:
        events = ask(stream=True, include=["logprobs"])
        seen["events"] = [[type(event).__name__, event.model_dump()] for event in events]
    print(json.dumps(seen))


main(*sys.argv[1:])
