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
from serving.loaded import INT8_MODEL, LARGER_CHUNKS, LoadedModel
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
    logs.loaded(recognizer.facts, time.perf_counter() - began)
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
    # The light bundle is the former version's; the longer chunks are the new one's own.
    chosen = replace(settings, model_version=version, light_bundle_dir=None)
    model = load_model(chosen, metrics, bundle=bundle, before=before)
    try:
        model.lighter = load_lighter(model, chosen, metrics)
    except BaseException:
        model.recognizer.close()
        raise
    return model


def load_lighter(
    model: LoadedModel, settings: ServeSettings, metrics: ServiceMetrics
) -> dict[str, LoadedModel]:
    """What takes the model's place under pressure, by rung: its int8 bundle, then longer chunks.

    The longer chunks are the bundle's next size; with an int8 bundle they are that one's.
    """
    lighter: dict[str, LoadedModel] = {}
    if not settings.degrade:
        return lighter
    serves, bundle = model.recognizer, model.recognizer.engine.bundle
    if settings.light_bundle_dir is not None:
        spec = serves.config.feature_spec
        bundle = Bundle.load(settings.light_bundle_dir, expected_spec=spec)
        _require_int8_of(serves, bundle)
        lighter[INT8_MODEL] = load_model(settings, metrics, bundle=bundle, before=model)
    engine = serves.engine
    present_ms = engine.graph.chunk_frames * engine.bundle.config.frame_ms
    longer_ms = [ms for ms in sorted(bundle.config.chunks) if ms > present_ms]
    if longer_ms:
        wide = replace(settings, chunk_ms=longer_ms[0])
        lighter[LARGER_CHUNKS] = load_model(wide, metrics, bundle=bundle, before=model)
    return lighter


def _require_int8_of(serves: AuricleRecognizer, bundle: Bundle) -> None:
    """The int8 bundle must be the served model's: same name, tokens and training."""
    light, full = bundle.config, serves.config
    facts = ("name", "language", "token_digest", "trained", "frame_ms")
    other = [name for name in facts if getattr(light, name) != getattr(full, name)]
    if light.variant != "int8" or other:
        why = f"its {other[0]} differs" if other else f"it is {light.variant}"
        raise AuricleError(
            f"it is not the int8 bundle of the model that is served: {why}",
            item=str(bundle.folder),
            mend="give the folder that the quantize stage made of the served bundle, or none",
        )


def load_runtime(settings: ServeSettings, metrics: ServiceMetrics) -> Runtime:
    """What a service process needs before it says that it is ready."""
    model = load_model(settings, metrics)
    model.lighter = load_lighter(model, settings, metrics)
    adopted = load_adopted(settings.adopted, metrics, max_duration_s=settings.max_duration_s)
    adopted.forbid((*own_names(model.facts), *settings.model_aliases))
    return Runtime(settings, model, metrics, adopted)
