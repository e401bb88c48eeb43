"""Parameters that no later stage could live with are refused when they are read, by their key."""

from pathlib import Path

import pytest
import yaml

from features import store_client
from governance.errors import ConfigError
from governance.params import load_text
from pipelines._params import BenchmarkParams, ExportParams, PublishParams
from pipelines.evaluate import EvaluateParams
from pipelines.publish import require_services

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = {"evaluate": EvaluateParams, "export": ExportParams, "benchmark": BenchmarkParams}


def text(section: str, **changes: object) -> str:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    return yaml.safe_dump({section: params[section] | changes})


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("evaluate", "modes", ["full"], "needs full and stream"),
        ("evaluate", "modes", ["masked", "stream"], "needs full and stream"),
        ("evaluate", "modes", [], "found nothing"),
        ("evaluate", "modes", ["full", "stream", "full"], "each mode once"),
        ("evaluate", "beam", 0, "1 or more"),
        ("evaluate", "players", -1, "0 or more"),
        ("export", "chunk_ms", [], "found nothing"),
        ("export", "chunk_ms", [640, 640], "different multiples of 40 ms, found 640, 640"),
        ("export", "chunk_ms", [100], "different multiples of 40 ms, found 100"),
        ("export", "chunk_ms", [0], "different multiples"),
        ("export", "name", "a@b", "no model name"),
        ("export", "name", "", "no model name"),
        ("benchmark", "audio_seconds", 0.0, "needs some audio_seconds"),
        ("benchmark", "repetitions", 0, "at least one of repetitions"),
    ],
)
def test_an_impossible_value_is_named_with_its_key(
    section: str, key: str, value: object, message: str
) -> None:
    load_text(text(section), section, KINDS[section])
    with pytest.raises(ConfigError, match=message) as refused:
        load_text(text(section, **{key: value}), section, KINDS[section])
    assert refused.value.item is not None and refused.value.mend
    assert refused.value.item in f"params.yaml: {section}.{key}"


@pytest.mark.parametrize("modes", [["full", "stream"], ["stream", "masked", "full"]])
def test_modes_in_any_order(modes: list[str]) -> None:
    assert load_text(text("evaluate", modes=modes), "evaluate", EvaluateParams).modes == tuple(
        modes
    )


def test_chunks_other_than_640_ms() -> None:
    assert load_text(text("export", chunk_ms=[320]), "export", ExportParams).chunk_ms == (320,)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("training_service", "asr_training_v9"),
        ("serving_service", "asr_serving_priors_v9"),
        ("serving_service", store_client.TRAINING_SERVICE),
        ("training_service", store_client.SERVING_SERVICE),
    ],
)
def test_a_feature_service_that_does_not_fit_is_named(key: str, name: str) -> None:
    good = load_text(text("publish"), "publish", PublishParams)
    require_services(good)
    with pytest.raises(ConfigError, match=f"no feature service '{name}'") as refused:
        require_services(load_text(text("publish", **{key: name}), "publish", PublishParams))
    assert refused.value.item == f"params.yaml: publish.{key}"
    assert getattr(good, key) in (refused.value.mend or "")
