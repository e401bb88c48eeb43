"""Parameters that no later stage could live with are refused when they are read, by their key."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from features import store_client
from governance.errors import ConfigError
from governance.params import load_text
from pipelines._params import EvaluateParams, ExportParams, PublishParams
from pipelines._sections import SECTIONS, require_sound_params
from pipelines.code import STAGES
from pipelines.publish import require_services
from pipelines.run import reproduce
from tests.support_workspace import command

ROOT = Path(__file__).resolve().parent.parent.parent
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
NAN, NONE = float("nan"), None

# section.key: values that no stage could live with
IMPOSSIBLE: dict[str, list[Any]] = {
    "synth.train_utterances": [-1, 1.5, True],
    "synth.seed": [-1],
    "synth.room_share": [1.1, -0.1, NAN],
    "synth.noise_share": [2],
    "synth.telephone_share": [-1],
    "synth.snr_low_db": [26.0],  # above snr_high_db
    "synth.silence_low_s": [-0.1, 1.5],
    "ingest.corpora": [[], [""], "builtin"],
    "ingest.drop_duplicates": ["often"],
    "validate.min_duration_s": [-1, 61.0],
    "validate.max_duration_s": [-1, 0],
    "validate.min_level_dbfs": [0.0],  # above max_level_dbfs
    "validate.max_clipping_ratio": [1.5],
    "validate.max_words_per_s": [0],
    "validate.languages": [[], [""]],
    "validate.max_quarantined_share": [-0.1, 10],
    "split.dev_percent": [-1, 95.0],  # with test_percent 10 more than there is
    "split.test_percent": [150],
    "split.salt": [""],
    "split.unknown_speakers": ["dev"],
    "tokens.order": [0, -3, 99],
    "featurize.speeds": [[], [0.0], [-1.0], [3.0]],
    "featurize.workers": [0, -1],
    "featurize.partition_mb": [0],
    "publish.training_service": [""],
    "publish.serving_service": ["", NONE],
    "train.model.heads": [0],
    "train.model.layers": [0],
    "train.model.dropout": [1.0],
    "train.augment.speeds": [[], [0.0], [0.7]],  # 0.7: not a speed of featurize
    "train.augment.warp": [1.0, -0.1],
    "train.augment.room_chance": [7, -1],
    "train.augment.noise_chance": [1.01],
    "train.augment.noise_snr_db": [[30.0, 5.0], [5.0]],
    "train.augment.margin_s": [[0.0, 0.8]],
    "train.augment.gain_db": [-6.0],
    "train.augment.ramp_steps": [-1],
    "train.augment.time_mask_frames": [0],
    "train.seed": [-1],
    "train.steps": [0, -5],
    "train.batch_utterances": [0],
    "train.batch_s": [-1, 0],
    "train.learning_rate": [-1, 0, NAN, float("inf")],
    "train.warmup_steps": [-3],
    "train.final_lr_share": [1.5],
    "train.weight_decay": [-0.1],
    "train.clip_norm": [0],
    "train.full_context_share": [7],
    "train.chunk_frames": [[0, 8], [32, 8]],
    "train.middle_weight": [2],
    "train.warm_prior_chance": [-1],
    "train.ema_steps": [0],
    "train.dev_every_steps": [0],
    "train.checkpoint_every_steps": [0],
    "train.precision": ["foo", "fp16"],
    "train.threads": [-2],
    "evaluate.modes": [["full"], ["masked", "stream"], [], ["full", "stream", "full"], ["fast"]],
    "evaluate.beam": [0],
    "evaluate.seed": [-1],
    "evaluate.players": [-1],
    "export.chunk_ms": [[], [640, 640], [100], [0]],
    "export.name": ["a@b", ""],
    "export.domain": [""],
    "quantize.calibration_streams": [0],
    "quantize.chunks_per_stream": [0],
    "quantize.probe_recordings": [0],
    "quantize.max_kl": [-1, 0],
    "quantize.narrow_above_kl": [-1],
    "quantize.max_reverted": [-1],
    "benchmark.audio_seconds": [0.0, -1],
    "benchmark.repetitions": [0],
    "gate.policy": [""],
    "gate.alias": [""],
    "package.gpu": ["perhaps"],
}


def text(section: str, **changes: object) -> str:
    return yaml.safe_dump({section: PARAMS[section] | changes})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace where nothing has run; this process stands in it."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spoil(folder: Path, key: str, value: object) -> None:
    """Give ``key`` of the folder's params.yaml another value."""
    params = deepcopy(PARAMS)
    *inner, last = key.split(".")
    section = params
    for name in inner:
        section = section[name]
    section[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def test_every_stage_has_its_section_checked(folder: Path) -> None:
    assert set(SECTIONS) == set(STAGES) - {"code"}
    assert {key.split(".")[0] for key in IMPOSSIBLE} == set(SECTIONS)
    require_sound_params()


@pytest.mark.parametrize("key", IMPOSSIBLE)
def test_an_impossible_value_is_named_with_its_key_and_a_mend(folder: Path, key: str) -> None:
    for value in IMPOSSIBLE[key]:
        spoil(folder, key, value)
        with pytest.raises(ConfigError) as refused:
            require_sound_params()
        assert refused.value.mend, value
        item = refused.value.item or ""
        where = item.removeprefix("params.yaml: ")
        assert item != where, item
        if key == "train.model.heads":
            assert where.startswith("train.model")
        elif key == "split.test_percent":
            assert where in (key, "split.dev_percent")
        else:
            assert where.partition("[")[0] == key, value


@pytest.mark.parametrize("run", [["run"], ["run", "ingest"], ["run", "--again", "ingest"]])
def test_no_stage_starts_while_a_later_section_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], run: list[str]
) -> None:
    spoil(folder, "train.steps", -5)
    status, out, err = command(capsys, *run)
    assert (status, out) == (2, "")
    assert err == (
        "auricle: params.yaml: train.steps: must be 1 or more, found -5. Mend: write 1 or more\n"
    )
    with pytest.raises(ConfigError, match="1 or more"):  # what train and demo begin with
        reproduce(["tokens", "publish"])
    assert not (folder / "data").exists()


def test_values_at_the_edge_are_taken(folder: Path) -> None:
    for key, value in (
        ("split.dev_percent", 90),
        ("train.augment.speeds", [1.0]),
        ("train.warmup_steps", 0),
        ("train.precision", "bf16"),
        ("validate.max_quarantined_share", 1),
        ("quantize.reduce_range", None),
    ):
        spoil(folder, key, value)
        require_sound_params()


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
