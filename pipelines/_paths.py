"""Where everything of a workspace lives, relative to its root (the folder of ``params.yaml``).

DVC owns what a stage makes (``dvc.yaml`` names the same paths; a test compares them); ``data/state``
and ``data/cache`` belong to this machine and are in neither git nor DVC.
"""

from pathlib import Path

SHARDS = Path("data/shards")
BUILTIN = SHARDS / "builtin"
MANIFESTS = Path("data/manifests")
ALL = MANIFESTS / "all.parquet"
ACCEPTED = MANIFESTS / "accepted.parquet"
QUARANTINE = MANIFESTS / "quarantine.json"
SPLIT = MANIFESTS / "split.parquet"
TOKENS = Path("data/tokens")
FEATURES = Path("data/features")
FEAST = Path("data/feast")
FRAMES = Path("data/frames")
PRIORS = Path("data/priors")
PRIOR_VIEW = PRIORS / "priors.sqlite"
MODELS = Path("data/models")
CHECKPOINT = MODELS / "checkpoint"
FP32 = MODELS / "fp32"
FP16 = MODELS / "fp16"
INT8 = MODELS / "int8"
CODE = Path("data/code")
REPORTS = Path("data/reports")
DATA_DOCS = REPORTS / "data_docs"
REPETITIONS = REPORTS / "repetitions.json"
EVALUATION_HTML = REPORTS / "evaluation.html"

STATE = Path("data/state")
CACHE = Path("data/cache")
FEATURE_CACHE = CACHE / "features"
LEDGER = STATE / "ledger.db"
KEYS = STATE / "keys"
MLFLOW_DB = STATE / "mlflow" / "mlflow.db"
MLFLOW_ARTIFACTS = STATE / "mlflow" / "artifacts"
RESUME = STATE / "checkpoints"
RUN = STATE / "run"
JOBS = STATE / "jobs"  # the service's accepted jobs and webhooks
API_KEYS = STATE / "tenants" / "keys.sqlite"  # key store; usage and access log lie beside it
DEVELOPMENT_KEY = API_KEYS.parent / "development.key"  # which `up` makes; for this machine alone
BENTO_ROOT = STATE / "bentos"  # build contexts, and the bento store in home/
EXPERIMENT = "auricle"
MODEL_NAME = "auricle"


def live(port: int) -> Path:
    """Where the service on ``port`` is told which version to serve."""
    return STATE / "live" / str(port)


def report(stage: str) -> Path:
    """The record that ``stage`` writes."""
    return REPORTS / f"{stage}.json"
