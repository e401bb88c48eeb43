"""The service's application behind a real server on a real port, in the test's own process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from serving.runtime import Runtime
from tests.support_service import application_of

_START_LIMIT_S = 30.0


@contextmanager
def served(
    bundle_dir: Path, *, send_buffer_bytes: int | None = None, **choices: Any
) -> Iterator[tuple[str, Runtime]]:
    """The address of a running service, and the runtime behind it.

    A small send buffer of the kernel shows sooner that a client does not read.
    """
    outer, runtime = application_of(bundle_dir, **choices)
    with socket.socket() as listener:
        if send_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        # The same choices as BentoML's worker, which starts uvicorn for us in production.
        server = uvicorn.Server(uvicorn.Config(outer, log_config=None, loop="asyncio"))
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        thread.start()
        end = time.monotonic() + _START_LIMIT_S
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}", runtime
        finally:
            server.should_exit = True
            thread.join(_START_LIMIT_S)
