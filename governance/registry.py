"""The one door to MLflow: runs, dataset inputs, artefacts, model versions and aliases.

``log_model`` is never used: bundles are plain files with digests, logged as artefacts. MLflow is
imported inside functions (seven seconds), and only ``pipelines`` may import this module.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.errors import ConfigError
from governance.telemetry import disable_vendor_telemetry

_PARAM_CHARACTERS = 6000
_NOISY = ("mlflow", "alembic", "alembic.runtime.migration", "mlflow.store.db.utils")


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered version of a model."""

    name: str
    version: int
    run_id: str
    source: str
    tags: dict[str, str]
    description: str


class Registry:
    """A local MLflow store: a SQLite database and a folder of artefacts."""

    def __init__(self, database: Path, artifacts: Path) -> None:
        self.database = database
        self.artifacts = artifacts
        database.parent.mkdir(parents=True, exist_ok=True)
        artifacts.mkdir(parents=True, exist_ok=True)
        self._client = _client(f"sqlite:///{database.resolve().as_posix()}")

    @property
    def tracking_uri(self) -> str:
        """What Lightning's MLFlowLogger is given."""
        return f"sqlite:///{self.database.resolve().as_posix()}"

    def start_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        """Start a run and return its id."""
        found = self._client.get_experiment_by_name(experiment)
        identity = (
            found.experiment_id
            if found
            else self._client.create_experiment(
                experiment, artifact_location=self.artifacts.resolve().as_uri()
            )
        )
        run = self._client.create_run(identity, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def exists(self, run_id: str) -> bool:
        """Whether the store knows the run (a store can be younger than a record)."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException:
            return False
        return True

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Parameters, nested keys joined by dots; logging the same value again is fine."""
        for key, value in flatten(params).items():
            self._client.log_param(run_id, key, str(value)[:_PARAM_CHARACTERS])

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Numbers at a step."""
        for key, value in metrics.items():
            self._client.log_metric(run_id, _metric_name(key), float(value), step=step)

    def log_artifacts(self, run_id: str, path: Path, folder: str = "") -> None:
        """A file, or everything below a folder."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(run_id, str(path), folder or None)

    def log_dataset(
        self, run_id: str, *, name: str, digest: str, source: str, context: str, profile: str = ""
    ) -> None:
        """A dataset input of the run: its digest, and where DVC finds its bytes."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        _register_dataset_source()
        dataset = Dataset(
            name=name,
            digest=digest.removeprefix("sha256:")[:36],
            source_type="dvc",
            source=json.dumps({"uri": source, "digest": digest}),
            profile=profile or None,
        )
        tags = [InputTag("mlflow.data.context", context)]
        self._client.log_inputs(run_id, [DatasetInput(dataset, tags)])

    def set_run_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Tags of a run."""
        for key, value in tags.items():
            self._client.set_tag(run_id, key, value)

    def finish(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status=status)

    def register_version(
        self, name: str, run_id: str, folder: str, tags: Mapping[str, str], description: str
    ) -> int:
        """Register the artefact folder ``folder`` of a run as the next version of ``name``."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(name)
        except MlflowException:
            self._client.create_registered_model(name)
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{folder}"
        made = self._client.create_model_version(
            name, source, run_id, tags=dict(tags), description=description
        )
        return int(made.version)

    def set_version_tags(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Tags of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(name, str(version), key, value)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, newest first."""
        found = self._client.search_model_versions(f"name='{name}'")
        return sorted((_version(item) for item in found), key=lambda item: -item.version)

    def version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that the alias points to in MLflow."""
        from mlflow.exceptions import MlflowException

        try:
            return _version(self._client.get_model_version_by_alias(name, alias))
        except MlflowException:
            raise ConfigError(
                "MLflow knows no such alias", item=f"{name}@{alias}", mend="auricle promote"
            ) from None

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version."""
        self._client.set_registered_model_alias(name, alias, str(version))

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> version; empty for an unknown model."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_registered_model(name).aliases
        except MlflowException:
            return {}
        return {alias: int(version) for alias, version in found.items()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _client(tracking_uri: str) -> Any:
    disable_vendor_telemetry(os.environ)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    for name in _NOISY:  # importing mlflow sets levels of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _metric_name(key: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in key)


def _version(item: Any) -> ModelVersion:
    return ModelVersion(
        name=item.name,
        version=int(item.version),
        run_id=item.run_id,
        source=item.source,
        tags=dict(item.tags),
        description=item.description or "",
    )


def _register_dataset_source() -> None:
    """Teach MLflow the source type ``dvc``, so that its clients can read what we log."""
    from mlflow.data.dataset_source import DatasetSource
    from mlflow.data.dataset_source_registry import (
        get_registered_sources,
        register_dataset_source,
    )

    if any(source._get_source_type() == "dvc" for source in get_registered_sources()):
        return

    class DvcSource(DatasetSource):  # type: ignore[misc]  # mlflow is untyped here
        """Bytes that `dvc pull` brings back, named by path and digest."""

        def __init__(self, uri: str, digest: str) -> None:
            self.uri, self.digest = uri, digest

        @staticmethod
        def _get_source_type() -> str:
            return "dvc"

        def load(self) -> str:
            return self.uri

        @staticmethod
        def _can_resolve(raw_source: Any) -> bool:
            return isinstance(raw_source, str) and raw_source.startswith("dvc://")

        @classmethod
        def _resolve(cls, raw_source: Any) -> "DvcSource":
            return cls(raw_source.removeprefix("dvc://"), "")

        def to_dict(self) -> dict[str, str]:
            return {"uri": self.uri, "digest": self.digest}

        @classmethod
        def from_dict(cls, source_dict: dict[str, str]) -> "DvcSource":
            return cls(source_dict["uri"], source_dict.get("digest", ""))

    register_dataset_source(DvcSource)


def newest(versions: Sequence[ModelVersion], tags: Mapping[str, str]) -> ModelVersion | None:
    """The newest version that carries all ``tags``."""
    for version in sorted(versions, key=lambda item: -item.version):
        if all(version.tags.get(key) == value for key, value in tags.items()):
            return version
    return None
