"""The service's application and jobs in a process of their own, under uvicorn: quick to kill.

    python -m tests.support_jobs_host PORT

The same settings from the environment, the same application, worker, dispatcher and retention as
under BentoML, without its supervisor.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CollectorRegistry

from serving import logs
from serving.api.app import Application
from serving.job_service import load_jobs
from serving.loading import load_runtime
from serving.metrics import ServiceMetrics
from serving.service import settings_from_environment


class Server(uvicorn.Server):
    """A stop signal ends the serving only: what comes after it is ours."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.handle_exit, 15, None)
        yield


async def serve(port: int) -> None:
    settings = settings_from_environment()
    runtime = load_runtime(settings, ServiceMetrics(CollectorRegistry()))
    jobs = load_jobs(settings, runtime)
    assert jobs is not None
    application = Application()
    await runtime.start()
    await jobs.start()
    application.attach(runtime, jobs)
    config = uvicorn.Config(application, port=port, lifespan="off", log_level="warning")
    await Server(config).serve()
    await runtime.drain()
    await jobs.close()
    await runtime.close()


if __name__ == "__main__":
    logs.configure()
    asyncio.run(serve(int(sys.argv[1])))
