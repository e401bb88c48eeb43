"""What tests ask MLflow itself about a store that the registry has written."""

import json

from governance.registry import ModelVersion, Registry


def datasets(registry: Registry, run_id: str) -> list[dict[str, str]]:
    """Dataset inputs of a run: name, context, full digest and uri of each."""
    found = []
    for entry in registry._client.get_run(run_id).inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in entry.tags}
        source = json.loads(entry.dataset.source)
        context = tags.get("mlflow.data.context", "")
        found.append({"name": entry.dataset.name, "context": context, **source})
    return found


def standing(registry: Registry, name: str, alias: str) -> ModelVersion:
    """The version that the alias points to in MLflow."""
    number = int(registry._client.get_model_version_by_alias(name, alias).version)
    (found,) = [version for version in registry.versions(name) if version.version == number]
    return found
