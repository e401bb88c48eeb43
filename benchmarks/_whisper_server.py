"""The peer of `benchmarks.adopted`: faster-whisper behind FastAPI, in the way that speaches runs it.

    python -m benchmarks._whisper_server --folder DIR --port N --threads T --workers W

One `WhisperModel` for all requests; the endpoint is a plain function, so that requests run side by
side in FastAPI's thread pool and meet in CTranslate2's own queue.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, UploadFile
from faster_whisper import WhisperModel


def application(folder: str, *, threads: int, workers: int) -> FastAPI:
    """The routes that the benchmark asks."""
    model = WhisperModel(
        folder, device="cpu", compute_type="int8", cpu_threads=threads, num_workers=workers
    )
    app = FastAPI()

    @app.get("/readyz")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v1/audio/transcriptions")
    def transcriptions(
        file: UploadFile, model_name: Annotated[str, Form(alias="model")]
    ) -> dict[str, str]:
        segments, _ = model.transcribe(
            file.file,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return {"text": "".join(segment.text for segment in segments).strip(), "model": model_name}

    return app


def main(argv: Sequence[str]) -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--folder", required=True)
    for name in ("port", "threads", "workers"):
        options.add_argument(f"--{name}", type=int, required=True)
    given = options.parse_args(argv)
    app = application(given.folder, threads=given.threads, workers=given.workers)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1:])
