"""Where DVC finds the bytes of a dataset, as a source type that MLflow reads back."""

import functools
from typing import Any

SOURCE_TYPE = "dvc"
SCHEME = "dvc://"


@functools.cache
def register_dataset_source_of_dvc() -> None:
    """Teach MLflow the source type ``dvc``: without it ``dvc://`` sources are refused."""
    from mlflow.data.dataset_source import DatasetSource
    from mlflow.data.dataset_source_registry import register_dataset_source

    class DvcSource(DatasetSource):
        """Bytes that `dvc pull` brings back, named by path and digest."""

        def __init__(self, uri: str, digest: str) -> None:
            self.uri, self.digest = uri, digest

        @staticmethod
        def _get_source_type() -> str:
            return SOURCE_TYPE

        def load(self) -> str:
            """The path below the workspace where `dvc pull` puts the bytes."""
            return self.uri.removeprefix(SCHEME)

        @staticmethod
        def _can_resolve(raw_source: Any) -> bool:
            return isinstance(raw_source, str) and raw_source.startswith(SCHEME)

        @classmethod
        def _resolve(cls, raw_source: Any) -> "DvcSource":
            uri, _, digest = raw_source.partition("?digest=")
            return cls(uri, digest)

        def to_dict(self) -> dict[str, str]:
            return {"uri": self.uri, "digest": self.digest}

        @classmethod
        def from_dict(cls, source_dict: dict[Any, Any]) -> "DvcSource":
            return cls(source_dict["uri"], source_dict.get("digest", ""))

    register_dataset_source(DvcSource)
