"""The service's application behind a real HTTP server, in a thread of the test."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from serving.runtime import Runtime
from tests.support_service import application_of


@contextmanager
def listening(bundle_dir: Path, **choices: Any) -> Iterator[tuple[str, Runtime]]:
    """Its address, and the runtime behind it."""
    app, runtime = application_of(bundle_dir, **choices)
    config = uvicorn.Config(app, port=0, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", runtime
    finally:
        server.should_exit = True
        thread.join(20)
