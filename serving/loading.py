"""From settings to a warm runtime, and from a warm model to the one after it."""

import time
from dataclasses import replace
from pathlib import Path

from features.bundle import Bundle
from governance.errors import AuricleError, TamperError
from serving import logs
from serving.adopted.models import load_adopted, own_names
from serving.engine.calibration import calibrated
from serving.engine.engine import Engine, EngineOptions
from serving.front.warm_start import WarmStart
from serving.loaded import LoadedModel
from serving.metrics import ServiceMetrics
from serving.recognizer import AuricleRecognizer
from serving.runtime import Runtime
from serving.settings import ServeSettings


def load_recognizer(settings: ServeSettings, bundle: Bundle | None = None) -> AuricleRecognizer:
    """Verify the bundle (``bundle`` is), open its sessions, run them once."""
    bundle = bundle or Bundle.load(settings.bundle_dir)
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


def load_model(
    settings: ServeSettings,
    metrics: ServiceMetrics,
    *,
    bundle: Bundle | None = None,
    before: LoadedModel | None = None,
) -> LoadedModel:
    """A recogniser that was run on every length of batch, with what that measured.

    ``before``: the model that serves meanwhile.
    """
    began = time.perf_counter()
    recognizer = load_recognizer(settings, bundle)
    facts = recognizer.facts
    logs.event(
        "loaded",
        model=facts.name,
        version=facts.version,
        variant=facts.variant,
        bundle_digest=facts.bundle_digest,
        total_ms=round((time.perf_counter() - began) * 1000, 1),
    )
    try:
        calibration = calibrated(
            recognizer.engine,
            settings.cache_dir,
            of_before=None if before is None else before.calibration,
        )
    except BaseException:
        recognizer.close()
        raise
    return LoadedModel(recognizer, calibration, metrics)


def load_successor(
    before: LoadedModel,
    settings: ServeSettings,
    metrics: ServiceMetrics,
    *,
    bundle_dir: Path,
    version: str = "",
    digest: str = "",
) -> LoadedModel:
    """Another version of the model that serves, warm; `AuricleError` says why it cannot be one.

    ``digest`` is what the bundle must have, where its caller has looked at it before.
    """
    serves = before.recognizer.config
    bundle = Bundle.load(bundle_dir, expected_spec=serves.feature_spec)
    if digest and bundle.bundle_digest != digest:
        raise TamperError(
            f"digest is {bundle.bundle_digest}, {digest} was asked for",
            item=str(bundle_dir),
            mend="keep a bundle's folder as it is while it is being loaded",
        )
    comes = bundle.config
    if (comes.name, comes.language) != (serves.name, serves.language):
        raise AuricleError(
            f"it is {comes.name} ({comes.language}), and {serves.name} ({serves.language}) is "
            "served: callers ask for that",
            item=str(bundle_dir),
            mend="give a version of the model that is served, or start a service of its own",
        )
    chosen = replace(settings, model_version=version)
    return load_model(chosen, metrics, bundle=bundle, before=before)


def load_runtime(settings: ServeSettings, metrics: ServiceMetrics) -> Runtime:
    """What a service process needs before it says that it is ready."""
    model = load_model(settings, metrics)
    adopted = load_adopted(settings.adopted, metrics, max_duration_s=settings.max_duration_s)
    adopted.forbid((*own_names(model.facts), *settings.model_aliases))
    return Runtime(settings, model, metrics, adopted)
