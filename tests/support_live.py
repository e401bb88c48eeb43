"""The service's application behind a real server on a real port, in the test's own process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Mount

from serving.api.app import Application
from serving.loading import load_runtime
from serving.metrics import ServiceMetrics
from serving.runtime import Runtime
from serving.settings import ServeSettings

_START_LIMIT_S = 30.0


@contextmanager
def served(
    bundle_dir: Path, *, send_buffer_bytes: int | None = None, **choices: Any
) -> Iterator[tuple[str, Runtime]]:
    """The address of a running service, and the runtime behind it.

    A small send buffer of the kernel shows sooner that a client does not read.
    """
    settings = ServeSettings(bundle_dir=bundle_dir, **choices)
    runtime = load_runtime(settings, ServiceMetrics(CollectorRegistry()))
    application = Application()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        await runtime.start()
        application.attach(runtime)
        yield
        await runtime.close()

    outer = Starlette(routes=[Mount("/", app=application)], lifespan=lifespan)
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
