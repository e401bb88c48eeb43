"""From settings to a warm runtime."""

import time

from features.bundle import Bundle
from serving import logs
from serving.engine.calibration import calibrated
from serving.engine.engine import Engine, EngineOptions
from serving.front.warm_start import WarmStart
from serving.loaded import LoadedModel
from serving.metrics import ServiceMetrics
from serving.recognizer import AuricleRecognizer
from serving.runtime import Runtime
from serving.settings import ServeSettings


def load_recognizer(settings: ServeSettings) -> AuricleRecognizer:
    """Verify the bundle, open its sessions, run them once."""
    bundle = Bundle.load(settings.bundle_dir)
    options = EngineOptions(
        threads=settings.threads,
        provider=settings.provider,
        chunk_ms=settings.chunk_ms,
        slots=settings.max_streams,
    )
    engine = Engine(bundle, options)
    engine.warm_up()
    warm_start = WarmStart(
        bundle.config,
        settings.priors_path,
        tenant=settings.tenant,
        deadline_ms=settings.prior_deadline_ms,
    )
    return AuricleRecognizer(
        engine,
        warm_start,
        version=settings.model_version,
        max_duration_s=settings.max_duration_s,
    )


def load_model(settings: ServeSettings, metrics: ServiceMetrics) -> LoadedModel:
    """A recogniser that was run on every length of batch, with what that measured."""
    began = time.perf_counter()
    recognizer = load_recognizer(settings)
    facts = recognizer.facts
    logs.event(
        "loaded",
        model=facts.name,
        version=facts.version,
        variant=facts.variant,
        bundle_digest=facts.bundle_digest,
        total_ms=round((time.perf_counter() - began) * 1000, 1),
    )
    calibration = calibrated(recognizer.engine, settings.cache_dir)
    return LoadedModel(recognizer, calibration, metrics)


def load_runtime(settings: ServeSettings, metrics: ServiceMetrics) -> Runtime:
    """What a service process needs before it says that it is ready."""
    return Runtime(settings, load_model(settings, metrics), metrics)
