"""What a service holds while nobody asks anything of it."""

import time
from dataclasses import dataclass

from benchmarks._service import Running

_IDLE_TASKS = 12
_QUIET_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Held:
    """Handles of all processes, tasks of the event loop, live streams."""

    handles: int
    tasks: float
    streams: float


def held(running: Running) -> Held:
    """Once it has noticed that nobody is there, absent clients of resumable streams included."""
    end_s = time.monotonic() + _QUIET_LIMIT_S
    while time.monotonic() < end_s and (
        running.gauge("auricle_streams_open") or running.gauge("auricle_tasks") > _IDLE_TASKS
    ):
        time.sleep(0.5)
    return Held(
        handles=sum(one.num_fds() for one in running.family()),
        tasks=running.gauge("auricle_tasks"),
        streams=running.gauge("auricle_streams_open"),
    )
