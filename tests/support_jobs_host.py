"""The service's application and jobs in a process of their own, under uvicorn: quick to kill.

    python -m tests.support_jobs_host PORT

The same settings from the environment, the same application, worker, dispatcher and retention as
under BentoML, without its supervisor.
"""

import asyncio
import sys

import uvicorn
from prometheus_client import CollectorRegistry

from serving import logs
from serving.api.app import Application
from serving.job_service import load_jobs
from serving.loading import load_runtime
from serving.metrics import ServiceMetrics
from serving.service import settings_from_environment


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
    await uvicorn.Server(config).serve()
    await runtime.drain()
    await jobs.close()
    await runtime.close()


if __name__ == "__main__":
    logs.configure()
    asyncio.run(serve(int(sys.argv[1])))
