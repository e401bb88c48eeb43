"""A registered version of a model, as MLflow keeps it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered version of a model."""

    name: str
    version: int
    run_id: str
    source: str  # URI of the artefact folder
    tags: dict[str, str]
    description: str

    @property
    def folder(self) -> Path | None:
        """The artefact folder on this machine, or None where it lies elsewhere."""
        parts = urlparse(self.source)
        return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def version_of(item: Any) -> ModelVersion:
    """From MLflow's own entity."""
    return ModelVersion(
        name=item.name,
        version=int(item.version),
        run_id=item.run_id or "",
        source=item.source,
        tags=dict(item.tags),
        description=item.description or "",
    )
