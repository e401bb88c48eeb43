"""A worker's side: begin with what is wanted, follow each new wish, say what came of it."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from governance.errors import AuricleError
from serving import logs
from serving.loading import load_runtime, load_successor
from serving.metrics import ServiceMetrics
from serving.problems import ApiProblem
from serving.runtime import Runtime
from serving.settings import ServeSettings
from serving.swap.live_folder import LiveFolder, Seat, Version, Wanted, WorkerWord

_LOOK_S = 0.2


def load_wanted(settings: ServeSettings, metrics: ServiceMetrics) -> Runtime:
    """The runtime of a worker that starts: what was wished for, or what the service began with.

    A worker that is started again after a crash joins the others; a wish that cannot be loaded any
    more must not keep the service from starting.
    """
    wanted = None
    if settings.live_dir is not None:
        with suppress(AuricleError):
            wanted = LiveFolder(settings.live_dir).wanted()
    for model in (wanted.model, wanted.before) if wanted is not None else ():
        chosen = replace(settings, bundle_dir=Path(model.bundle), model_version=model.version)
        try:
            return load_runtime(chosen, metrics)
        except AuricleError as error:
            logs.crash("wanted_model_failed", error)
    return load_runtime(settings, metrics)


class Follower:
    """Watches the folder on the service's event loop."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime = runtime
        self._live = LiveFolder(folder)
        self._folders = {runtime.model.facts.bundle_digest: str(runtime.settings.bundle_dir)}
        self._seat: Seat | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take a seat and begin to watch."""
        self._seat = Seat(self._live)
        self._say("")
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._seat is not None:
            self._seat.leave()

    async def _follow(self) -> None:
        seen: tuple[int, int] | None = None
        while True:
            if (stamp := self._live.stamp()) != seen:
                seen = stamp
                try:
                    wanted = self._live.wanted()
                except AuricleError as error:
                    logs.crash("wish_unreadable", error)
                    wanted = None
                if wanted is not None:
                    await self._fulfil(wanted)
            await asyncio.sleep(_LOOK_S)

    async def _fulfil(self, wanted: Wanted) -> None:
        """Serve what is wanted, or say why not; nothing ends the watch."""
        model, serves = wanted.model, self._runtime.model.facts
        if (serves.bundle_digest, serves.version) == (model.digest, model.version):
            await asyncio.to_thread(self._say, wanted.id)
            return
        load = partial(
            load_successor, settings=self._runtime.settings, metrics=self._runtime.metrics,
            bundle_dir=Path(model.bundle), version=model.version, digest=model.digest,
        )  # fmt: skip
        reason, mend = "", ""
        try:
            loaded = await self._runtime.swap(load)
            self._folders[loaded.facts.bundle_digest] = model.bundle
        except AuricleError as error:
            reason, mend = f"{error.item or model.bundle}: {error.message}", error.mend or ""
        except ApiProblem as problem:
            reason = problem.message
        except Exception as error:
            logs.crash("swap_failed", error)
            reason = f"it cannot be loaded ({type(error).__name__})"
        outcome = "refused" if reason else "done"
        self._runtime.metrics.swaps.labels(outcome).inc()
        logs.event("swap", outcome=outcome, version=model.version, bundle_digest=model.digest)
        await asyncio.to_thread(self._say, wanted.id, reason=reason, mend=mend)

    def _say(self, answers: str, *, reason: str = "", mend: str = "") -> None:
        assert self._seat is not None
        facts = self._runtime.model.facts
        serves = Version(
            bundle=str(Path(self._folders[facts.bundle_digest]).absolute()),
            version=facts.version,
            digest=facts.bundle_digest,
        )
        self._seat.say(
            WorkerWord(
                worker=self._seat.id, answers=answers, outcome="refused" if reason else "serving",
                serves=serves, reason=reason, mend=mend,
            )
        )  # fmt: skip
