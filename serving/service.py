"""The BentoML service: wiring only.

Environment (the only place below the pipelines that reads it):

=========================  =====================================================================
AURICLE_BUNDLE             folder of the model bundle; inside a bento: the bundle it carries
AURICLE_LIGHT_BUNDLE_DIR   folder of the same model's int8 bundle, which answers under pressure
AURICLE_PRIORS             key-value view of speakers' priors; absent: every start is cold
AURICLE_MODEL_VERSION      the registry's version, shown in every transcript
AURICLE_LIVE               folder through which ``auricle swap`` changes the model of every worker
AURICLE_PROCESSES          worker processes behind the port (default 1)
AURICLE_MODEL_ALIASES      comma-separated names that requests may use for the model besides its
                           own and NAME@VERSION (default auricle,auricle@champion)
AURICLE_ADOPTED            comma-separated NAME=FOLDER of pretrained Whisper models to serve too;
                           an alias of one is ALIAS=NAME in AURICLE_MODEL_ALIASES
AURICLE_ADOPTED_THREADS, AURICLE_ADOPTED_COMPUTE, AURICLE_ADOPTED_FITTED: see ``docs/adopted.md``
AURICLE_THREADS            threads of one model call (default 1)
AURICLE_PROVIDER           cpu (default) or cuda
AURICLE_CHUNK_MS           model chunk of live streams (default: 640, or the bundle's nearest)
AURICLE_DEGRADE            0: never decode without the language model under pressure
AURICLE_CACHE              folder that keeps what a start measured of this machine
AURICLE_MAX_STREAMS        live streams at once
AURICLE_MAX_UPLOAD_BYTES   largest upload
AURICLE_MAX_WAITING        uploads in work or waiting (default 64)
AURICLE_MAX_WAIT_S         expected wait beyond which uploads are refused unread (default 5)
AURICLE_DRAIN_S            how long a stopping process waits for its streams
AURICLE_KEYS               key store: every caller needs a key; absent: this machine only, no keys
AURICLE_PAGE_KEY           file with a key that the page on this machine is given
AURICLE_TLS_MINIMUM        oldest TLS that is spoken: 1.2 (default) or 1.3
AURICLE_RECORDS            folder of usage records and access log (default: beside the key store)
AURICLE_TOKEN_STREAM_S     how long an open stream outlives the client token that opened it
                           (default 14400, the longest session)
AURICLE_OPEN               1: answer other machines although there is no key store
AURICLE_TRACE_ENDPOINT     collector that takes OTLP over HTTP; absent: nothing is traced
AURICLE_TRACE_SHARE        share of requests that is traced (default 1)
AURICLE_ORIGINS            comma-separated origins of other sites' pages that may use the service
AURICLE_JOBS_DIR           folder of jobs and webhooks, on a local disk; absent: no ``/v1/jobs``
AURICLE_JOB_LEASE_S, AURICLE_JOB_ATTEMPTS, AURICLE_JOB_TTL_S, AURICLE_JOB_RUNNERS,
AURICLE_JOBS_PER_TENANT, AURICLE_WEBHOOK_ATTEMPTS, AURICLE_WEBHOOK_BACKOFF_S,
AURICLE_WEBHOOK_TIMEOUT_S, AURICLE_WEBHOOK_TRACEPARENT, AURICLE_JOB_URL_HOSTS,
AURICLE_JOB_OBJECTS, AURICLE_OUTBOUND_ALLOW, AURICLE_OUTBOUND_CA, AURICLE_JOBS_DATABASE,
AURICLE_JOBS_REDIS,
AURICLE_FAILPOINTS: see ``docs/jobs.md``
=========================  =====================================================================
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import bentoml

from governance.errors import ConfigError
from serving.api.straight import StraightWay
from serving.packaging.launch import require_protected, told_host
from serving.packaging.tls import speak_at_least
from serving.settings import (
    AdoptedSettings,
    JobSettings,
    ProtectionSettings,
    ServeSettings,
    TraceSettings,
)

_PARENT = os.getppid()
# Python's 5 ms are what the event loop and the model's thread would wait, at each of their many short
# turns, for a thread that decodes words.
SWITCH_S = 0.0005
BENTO_BUNDLE = Path(__file__).resolve().parent.parent / "bundle"
_MOST_PROCESSES = 256
_NUMBERS = {
    "threads": ("AURICLE_THREADS", int),
    "chunk_ms": ("AURICLE_CHUNK_MS", int),
    "max_streams": ("AURICLE_MAX_STREAMS", int),
    "max_upload_bytes": ("AURICLE_MAX_UPLOAD_BYTES", int),
    "max_waiting_requests": ("AURICLE_MAX_WAITING", int),
    "max_wait_s": ("AURICLE_MAX_WAIT_S", float),
    "drain_s": ("AURICLE_DRAIN_S", float),
}
_JOB_NUMBERS = {
    "lease_s": ("AURICLE_JOB_LEASE_S", float),
    "max_attempts": ("AURICLE_JOB_ATTEMPTS", int),
    "ttl_s": ("AURICLE_JOB_TTL_S", float),
    "runners": ("AURICLE_JOB_RUNNERS", int),
    "max_open_jobs": ("AURICLE_JOBS_PER_TENANT", int),
    "webhook_attempts": ("AURICLE_WEBHOOK_ATTEMPTS", int),
    "webhook_backoff_s": ("AURICLE_WEBHOOK_BACKOFF_S", float),
    "webhook_timeout_s": ("AURICLE_WEBHOOK_TIMEOUT_S", float),
}


class Door:
    """The mounted ASGI application; what is behind it is imported in the worker only.

    BentoML imports this module in its supervisor too, which would pay for ONNX Runtime and FFmpeg.
    """

    def __init__(self) -> None:
        self.application: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on to the application."""
        await self.application(scope, receive, send)


door = Door()


def settings_from_environment() -> ServeSettings:
    """The operator's choices."""
    chosen = _numbers(_NUMBERS)
    names = _names("AURICLE_MODEL_ALIASES")
    if aliases := tuple(name for name in names if "=" not in name):
        chosen["model_aliases"] = aliases
    if provider := os.environ.get("AURICLE_PROVIDER"):
        chosen["provider"] = provider
    light = os.environ.get("AURICLE_LIGHT_BUNDLE_DIR")
    priors = os.environ.get("AURICLE_PRIORS")
    cache = os.environ.get("AURICLE_CACHE")
    live = os.environ.get("AURICLE_LIVE")
    return ServeSettings(
        bundle_dir=Path(os.environ.get("AURICLE_BUNDLE") or BENTO_BUNDLE),
        light_bundle_dir=Path(light) if light else None,
        priors_path=Path(priors) if priors else None,
        cache_dir=Path(cache) if cache else None,
        live_dir=Path(live) if live else None,
        degrade=os.environ.get("AURICLE_DEGRADE", "1") != "0",
        model_version=os.environ.get("AURICLE_MODEL_VERSION", ""),
        jobs=_jobs_from_environment(),
        protection=_protection_from_environment(),
        trace=_trace_from_environment(),
        adopted=_adopted_from_environment([name for name in names if "=" in name]),
        **chosen,
    )


def _adopted_from_environment(aliases: Sequence[str]) -> tuple[AdoptedSettings, ...]:
    """``NAME=FOLDER`` for each model; ``aliases`` are ``ALIAS=NAME``."""
    folders = dict(_pair(entry, "AURICLE_ADOPTED") for entry in _names("AURICLE_ADOPTED"))
    names = dict(_pair(entry, "AURICLE_MODEL_ALIASES") for entry in aliases)
    if strangers := sorted(set(names.values()) - set(folders)):
        raise ConfigError(
            f"{strangers[0]!r} is no adopted model",
            item="AURICLE_MODEL_ALIASES",
            mend="name the model and its folder in AURICLE_ADOPTED",
        )
    chosen = _numbers({"threads": ("AURICLE_ADOPTED_THREADS", int)})
    if kind := os.environ.get("AURICLE_ADOPTED_COMPUTE"):
        chosen["compute_type"] = kind
    fitted = os.environ.get("AURICLE_ADOPTED_FITTED", "") == "1"
    return tuple(
        AdoptedSettings(
            name=name,
            folder=Path(folder),
            aliases=tuple(alias for alias, target in names.items() if target == name),
            fitted=fitted,
            **chosen,
        )
        for name, folder in folders.items()
    )


def _pair(entry: str, variable: str) -> tuple[str, str]:
    name, sign, value = (part.strip() for part in entry.partition("="))
    if not (name and sign and value):
        raise ConfigError(f"{entry!r} is not of the form NAME=VALUE", item=variable)
    return name, value


def _trace_from_environment() -> TraceSettings | None:
    endpoint = os.environ.get("AURICLE_TRACE_ENDPOINT")
    if not endpoint:
        return None
    return TraceSettings(endpoint=endpoint, **_numbers({"share": ("AURICLE_TRACE_SHARE", float)}))


def _protection_from_environment() -> ProtectionSettings:
    keys, records = os.environ.get("AURICLE_KEYS"), os.environ.get("AURICLE_RECORDS")
    page_key = os.environ.get("AURICLE_PAGE_KEY")
    return ProtectionSettings(
        keys_path=Path(keys) if keys else None,
        records_dir=Path(records) if records else None,
        page_key_path=Path(page_key) if page_key else None,
        open_to_network=bool(os.environ.get("AURICLE_OPEN")),
        origins=_names("AURICLE_ORIGINS"),
        **_numbers({"token_stream_s": ("AURICLE_TOKEN_STREAM_S", float)}),
    )


def _jobs_from_environment() -> JobSettings | None:
    folder = os.environ.get("AURICLE_JOBS_DIR")
    if not folder:
        return None
    ca_file = os.environ.get("AURICLE_OUTBOUND_CA")
    failpoints_dir = os.environ.get("AURICLE_FAILPOINTS")
    return JobSettings(
        folder=Path(folder),
        database=os.environ.get("AURICLE_JOBS_DATABASE", ""),
        redis=os.environ.get("AURICLE_JOBS_REDIS", ""),
        url_hosts=_names("AURICLE_JOB_URL_HOSTS"),
        object_prefixes=_names("AURICLE_JOB_OBJECTS"),
        webhook_traceparent=os.environ.get("AURICLE_WEBHOOK_TRACEPARENT") == "1",
        outbound_openings=os.environ.get("AURICLE_OUTBOUND_ALLOW", ""),
        outbound_ca_file=Path(ca_file) if ca_file else None,
        failpoints_dir=Path(failpoints_dir) if failpoints_dir else None,
        **_numbers(_JOB_NUMBERS),
    )


def _numbers(variables: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """Fields whose variable is set; a value that cannot be read is named."""
    chosen: dict[str, Any] = {}
    for field, (variable, kind) in variables.items():
        if text := os.environ.get(variable):
            try:
                chosen[field] = kind(text)
            except ValueError:
                raise ConfigError(f"{text!r} is not a number", item=variable) from None
    return chosen


def _processes() -> int:
    """Workers of the service; each loads the model for itself."""
    text = os.environ.get("AURICLE_PROCESSES") or "1"
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_PROCESSES):
        raise SystemExit(
            f"auricle: AURICLE_PROCESSES: {text!r} is no number from 1 to {_MOST_PROCESSES}"
        )
    return int(text)


def _names(variable: str) -> tuple[str, ...]:
    """Names separated by commas."""
    text = os.environ.get(variable, "")
    return tuple(name.strip() for name in text.split(",") if name.strip())


speak_at_least(os.environ.get("AURICLE_TLS_MINIMUM", ""))  # before the worker makes its sockets
if (_host := told_host(sys.argv, os.environ)) is not None:  # in the supervisor, before any worker
    try:
        require_protected(_host, os.environ)
    except ConfigError as error:
        raise SystemExit(f"auricle: {error}") from None


# BentoML's own limits stay wide and its request metrics and access log off: admission is ours, and
# both would write paths and counts of an open WebSocket's life into places that we do not control.
@bentoml.asgi_app(door)
@bentoml.service(
    name="auricle",
    workers=_processes(),
    http={"host": "127.0.0.1", "port": 3000},
    traffic={"timeout": 86_400},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Auricle:
    """Loads and warms one bundle, then serves it."""

    def __init__(self) -> None:
        from prometheus_client import REGISTRY

        from serving import logs, memory
        from serving.job_service import load_jobs
        from serving.metrics import ServiceMetrics
        from serving.observe.traces import tracing_of
        from serving.swap.follow import Follower, load_wanted
        from serving.tenants.desk import open_desk

        sys.setswitchinterval(SWITCH_S)
        logs.configure()
        memory.share_arenas()
        several = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
        metrics = ServiceMetrics(REGISTRY, several_processes=several)
        settings = settings_from_environment()
        self.runtime = load_wanted(settings, metrics)
        live = settings.live_dir
        self.follower = None if live is None else Follower(self.runtime, live)
        self.jobs = load_jobs(settings, self.runtime)
        self.tenants = open_desk(settings.protection)
        self.tracing = tracing_of(settings.trace)

    @bentoml.on_startup
    async def begin(self) -> None:
        """Start the batcher on the server's loop and take over the stop signals."""
        from serving import memory
        from serving.api.app import Application
        from serving.stopping import drain_on_signals, exit_with_parent

        await self.runtime.start()
        application = Application()
        if self.jobs is not None:
            await self.jobs.start()
        application.attach(self.runtime, self.jobs, self.tenants, self.tracing)
        door.application = application
        if self.follower is not None:
            self.follower.start()
        drain_on_signals(self.runtime)
        exit_with_parent(_PARENT)
        memory.settle()
        self._giving_back = asyncio.create_task(memory.give_back())

    @bentoml.on_shutdown
    async def end(self) -> None:
        """Give unfinished jobs back, stop the batcher and the worker threads."""
        self._giving_back.cancel()
        if self.follower is not None:
            await self.follower.close()
        if self.jobs is not None:
            await self.jobs.close()
        await self.runtime.close()
        self.tenants.close()
        if self.tracing is not None:
            self.tracing.close()

    async def __is_ready__(self) -> bool:
        """Warm, and not on the way out."""
        return self.runtime.ready


_service: Any = Auricle  # BentoML's decorator is typed as if it gave the class
_service.add_asgi_middleware(StraightWay, routes=door)
