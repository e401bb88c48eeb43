"""The one door to MLflow: runs, dataset inputs, artefacts, model versions and aliases.

``log_model`` is never used: bundles are plain files with digests, logged as artefacts. Nothing is
ever deleted: a deleted version would take its alias with it, silently. MLflow is imported inside
functions (seven seconds), and only ``pipelines`` may import this package.
"""

from governance.registry.store import Registry, RunLogger
from governance.registry.versions import ModelVersion

__all__ = ["ModelVersion", "Registry", "RunLogger"]
