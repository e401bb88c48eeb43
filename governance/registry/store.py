"""An MLflow store as the pipeline writes and reads it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from governance.errors import ConfigError
from governance.records import plain
from governance.registry.client import open_client, or_none, quiet
from governance.registry.dvc_source import SCHEME, SOURCE_TYPE, register_dataset_source_of_dvc
from governance.registry.versions import ModelVersion, version_of

_PARAM_CHARACTERS = 6000
_DATASET_DIGEST_CHARACTERS = 36  # MLflow's column; the full digest stands in the source
_BATCH = 100  # MLflow's limit of params in one request

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Registry:
    """An MLflow store: a SQLite file or another database by URI, and a folder of artefacts."""

    def __init__(self, database: Path | str, artifacts: Path) -> None:
        if isinstance(database, Path):
            database.parent.mkdir(parents=True, exist_ok=True)
            self.tracking_uri = f"sqlite:///{database.resolve().as_posix()}"
        else:
            self.tracking_uri = database
        if self.tracking_uri.startswith("file:"):
            raise ConfigError(
                "MLflow refuses folders as a store",
                item=self.tracking_uri,
                mend="give a database, for example sqlite:///mlflow.db",
            )
        self.artifacts = artifacts
        artifacts.mkdir(parents=True, exist_ok=True)
        self._client = open_client(self.tracking_uri)

    def start_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        """Start a run and return its id; the experiment is made where it is not there."""
        with quiet():
            run = self._client.create_run(
                self._experiment_id(experiment), run_name=name, tags=dict(tags)
            )
        return str(run.info.run_id)

    def exists(self, run_id: str) -> bool:
        """Whether the store knows the run (a store can be younger than a record)."""
        return or_none(lambda: self._client.get_run(run_id)) is not None

    def find_run(self, experiment: str, tag: str, value: str) -> str | None:
        """Id of the newest run of an experiment whose ``tag`` has this value."""
        known = self._client.get_experiment_by_name(experiment)
        if known is None:
            return None
        found = self._client.search_runs(
            [known.experiment_id], filter_string=f"tags.{tag} = '{value}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Parameters, nested keys joined by dots; logging the same value again is fine."""
        from mlflow.entities import Param

        entries = [
            Param(_name(key), _text(value)[:_PARAM_CHARACTERS])
            for key, value in _flatten(plain(params)).items()
        ]
        for start in range(0, len(entries), _BATCH):
            self._client.log_batch(run_id, params=entries[start : start + _BATCH])

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Numbers at a step."""
        for key, value in metrics.items():
            self._client.log_metric(run_id, _name(key), float(value), step=step)

    def log_artifacts(self, run_id: str, path: Path, folder: str = "") -> None:
        """A file, or everything below a folder."""
        if not path.exists():
            raise ConfigError("there is nothing to log", item=str(path))
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(run_id, str(path), folder or None)

    def log_dataset(
        self, run_id: str, *, name: str, digest: str, source: str, context: str, profile: str = ""
    ) -> None:
        """A dataset input of the run: its digest, and where DVC finds its bytes."""
        from mlflow.data.dataset_source_registry import resolve_dataset_source
        from mlflow.entities import Dataset, DatasetInput, InputTag

        register_dataset_source_of_dvc()
        place = source if source.startswith(SCHEME) else f"{SCHEME}{source}"
        resolved = resolve_dataset_source(f"{place}?digest={digest}")
        dataset = Dataset(
            name=name,
            digest=_short(digest),
            source_type=SOURCE_TYPE,
            source=resolved.to_json(),
            profile=profile or None,
        )
        tags = [InputTag("mlflow.data.context", context)]
        self._client.log_inputs(run_id, [DatasetInput(dataset, tags)])

    def logger(self, run_id: str) -> "RunLogger":
        """What a trainer is given to record its curves."""
        return RunLogger(self, run_id)

    def finish(self, run_id: str, status: Status = "FINISHED") -> None:
        """End a run."""
        self._client.set_terminated(run_id, status=status)

    def register_version(
        self, name: str, run_id: str, folder: str, tags: Mapping[str, str], description: str
    ) -> int:
        """Register the artefact folder ``folder`` of a run as the next version of ``name``.

        The folder has to be logged before (``log_artifacts``); an empty one is refused.
        """
        if not self._client.list_artifacts(run_id, folder):
            raise ConfigError(
                f"the run {run_id} has no artefacts in this folder",
                item=folder,
                mend="log the bundle's folder first",
            )
        with quiet():
            if or_none(lambda: self._client.get_registered_model(name)) is None:
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

    def describe_version(self, name: str, version: int, text: str) -> None:
        """The description that a version's page shows (Markdown)."""
        self._client.update_model_version(name, str(version), description=text)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, newest first."""
        found = self._client.search_model_versions(f"name='{name}'")
        return sorted((version_of(item) for item in found), key=lambda item: -item.version)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version."""
        version_known = or_none(lambda: self._client.get_model_version(name, str(version)))
        if version_known is None:
            raise ConfigError(f"MLflow has no version {version}", item=name, mend="`auricle run`")
        self._client.set_registered_model_alias(name, alias, str(version))

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> version; empty for an unknown model."""
        found = or_none(lambda: self._client.get_registered_model(name))
        aliases = found.aliases if found is not None else {}
        return {alias: int(version) for alias, version in aliases.items()}

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = self.artifacts.resolve().as_uri()
            made = or_none(
                lambda: self._client.create_experiment(name, artifact_location=location),
                code="RESOURCE_ALREADY_EXISTS",  # another process was first
            )
            if made is not None:
                return str(made)
            found = self._client.get_experiment_by_name(name)
        if found.lifecycle_stage != "active":
            raise ConfigError(
                "the experiment is in MLflow's bin", item=name, mend="restore it in the MLflow UI"
            )
        return str(found.experiment_id)


class RunLogger:
    """Curves of one run, in the form that a trainer calls."""

    def __init__(self, registry: Registry, run_id: str) -> None:
        self._registry, self._run_id = registry, run_id

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Record named numbers at a step."""
        self._registry.log_metrics(self._run_id, metrics, step=step)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_DATASET_DIGEST_CHARACTERS]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _name(key: str) -> str:
    """A key with only the characters that MLflow allows in names."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in key)
