"""The adopted models of one process: loaded and measured at the start, found by any of their names."""

import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from governance.errors import ConfigError
from serving import logs
from serving.admission.cost import CostModel, Price
from serving.adopted.folder import open_folder, require_name
from serving.adopted.queue import WindowQueue
from serving.adopted.recognizer import WhisperRecognizer
from serving.adopted.whisper import WhisperEngine, WhisperOptions
from serving.adopted.windows import Window
from serving.metrics import ServiceMetrics
from serving.schema import ModelFacts
from serving.settings import AdoptedSettings

_WARM_S = 8.0  # of sound in the window that is measured
_MAX_ROWS = 4  # of one call: more bring little, and keep the first of them waiting


class AdoptedModel:
    """A warm recogniser, the queue before it, and what a recording costs with it."""

    def __init__(
        self, recognizer: WhisperRecognizer, aliases: Sequence[str], metrics: ServiceMetrics
    ) -> None:
        self.recognizer = recognizer
        facts = recognizer.facts
        self.names = (*own_names(facts), *aliases)
        self._metrics = metrics
        self._queue: WindowQueue | None = None
        self.costs = CostModel(_measured(recognizer.engine))

    @property
    def queue(self) -> WindowQueue:
        """Where its windows wait."""
        assert self._queue is not None, "start() comes first"
        return self._queue

    def start(self) -> None:
        """Begin to serve, on the running loop."""
        engine = self.recognizer.engine
        self._queue = WindowQueue(
            engine, self._metrics, threads=engine.options.calls, max_rows=_MAX_ROWS
        )

    async def close(self) -> None:
        """Refuse what waits, stop the threads."""
        if self._queue is not None:
            await self._queue.close()


class AdoptedModels:
    """All of them; a name belongs to one model only."""

    def __init__(self, models: Sequence[AdoptedModel] = ()) -> None:
        self._models = tuple(models)
        self._by_name: dict[str, AdoptedModel] = {}
        for model in self._models:
            for name in model.names:
                if name in self._by_name:
                    raise ConfigError(
                        "names two models", item=name, mend="give every model names of its own"
                    )
                self._by_name[name] = model

    def __iter__(self) -> Iterator[AdoptedModel]:
        return iter(self._models)

    def forbid(self, names: Sequence[str]) -> None:
        """Refuse to start where Auricle's own model goes by one of ``names`` too."""
        for name in names:
            if name in self._by_name:
                raise ConfigError(
                    "names Auricle's own model already",
                    item=name,
                    mend="choose another name in AURICLE_ADOPTED or AURICLE_MODEL_ALIASES",
                )

    def find(self, name: str) -> AdoptedModel | None:
        """The model of this name, ``NAME@VERSION`` or alias."""
        return self._by_name.get(name)

    def start(self) -> None:
        """Begin to serve, on the running loop."""
        for model in self._models:
            model.start()

    async def close(self) -> None:
        """Stop all of them."""
        for model in self._models:
            await model.close()


def load_adopted(
    wanted: Sequence[AdoptedSettings], metrics: ServiceMetrics, *, max_duration_s: float
) -> AdoptedModels:
    """Every model that the operator names, warm."""
    return AdoptedModels([_load(one, metrics, max_duration_s) for one in wanted])


def own_names(facts: ModelFacts) -> tuple[str, str]:
    """What every model is called."""
    return facts.name, f"{facts.name}@{facts.version}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(wanted: AdoptedSettings, metrics: ServiceMetrics, max_duration_s: float) -> AdoptedModel:
    began = time.perf_counter()
    for name in (wanted.name, *wanted.aliases):
        require_name(name)
    options = WhisperOptions(
        calls=wanted.threads or cores(), compute_type=wanted.compute_type, fitted=wanted.fitted
    )
    engine = WhisperEngine(open_folder(wanted.folder), options)
    recognizer = WhisperRecognizer(engine, wanted.name, max_duration_s=max_duration_s)
    model = AdoptedModel(recognizer, wanted.aliases, metrics)
    logs.loaded(recognizer.facts, time.perf_counter() - began)
    return model


def _measured(engine: WhisperEngine) -> Price:
    """What a window of noise takes: a first price, which the requests then correct."""
    mels, frames = len(engine.mel.filters_MF), round(_WARM_S * 100)
    noise_MT = np.random.default_rng(0).uniform(-0.5, 0.5, (mels, frames)).astype(np.float32)
    began = time.perf_counter()
    engine.read([Window(x_MT=noise_MT)])
    spent_s = time.perf_counter() - began
    return Price(per_request_s=spent_s / 2, per_audio_s=spent_s / 2 / _WARM_S)
