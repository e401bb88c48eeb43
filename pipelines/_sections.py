"""Every section of ``params.yaml``, checked before the first stage starts.

A stage loads its own section again; this spares a run of minutes that a later section would stop.
"""

from data.contract_rules import ContractConfig
from data.synth import SynthConfig
from governance.errors import ConfigError
from governance.params import load_all
from pipelines._params import (
    BenchmarkParams,
    EvaluateParams,
    ExportParams,
    FeaturizeParams,
    GateParams,
    IngestParams,
    PackageParams,
    PublishParams,
    SplitParams,
    TokensParams,
)
from training.config import TrainConfig
from training.quantize_config import QuantizeConfig

SECTIONS: dict[str, type] = {
    "synth": SynthConfig,
    "ingest": IngestParams,
    "validate": ContractConfig,
    "split": SplitParams,
    "tokens": TokensParams,
    "featurize": FeaturizeParams,
    "publish": PublishParams,
    "train": TrainConfig,
    "evaluate": EvaluateParams,
    "export": ExportParams,
    "quantize": QuantizeConfig,
    "benchmark": BenchmarkParams,
    "gate": GateParams,
    "package": PackageParams,
}
"""Stage -> what its section is read as."""


def require_sound_params() -> None:
    """Refuse the first section that its stage would refuse, and sections that do not fit together."""
    found = load_all(SECTIONS)
    archived = {_permille(speed) for speed in (1.0, *found["featurize"].speeds)}
    drawn = found["train"].augment.speeds
    if strange := [f"{speed:g}" for speed in drawn if _permille(speed) not in archived]:
        raise ConfigError(
            f"draws speeds that featurize does not make: {', '.join(strange)}",
            item="params.yaml: train.augment.speeds",
            mend="add them to featurize.speeds, or name only speeds that stand there",
        )


def _permille(speed: float) -> int:
    return round(speed * 1000)
