from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from governance.errors import ConfigError
from governance.params import load, load_text


@dataclass(frozen=True, kw_only=True)
class Model:
    layers: int
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Train:
    steps: int
    learning_rate: float
    model: Model
    speeds: tuple[float, ...] = (1.0,)
    chunk: tuple[int, int] = (8, 32)
    precision: Literal["fp32", "bf16"] = "fp32"
    note: str | None = None
    limit: int | str = "none"
    folder: Path = Path("data")
    shares: dict[str, float] = field(default_factory=dict)
    corpora: list[str] = field(default_factory=list)
    resume: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError("steps start at 0")


GOOD = """
other: {unrelated: 1}
train:
  steps: 10
  learning_rate: 3e-3
  model: {layers: 4}
  speeds: [0.9, 1, 1.1]
  chunk: [4, 8]
  precision: bf16
  note: null
  limit: 7
  folder: data/x
  shares: {train: 1}
  corpora: [no, on]
  resume: true
"""


def test_a_section_becomes_its_dataclass(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    train = load("train", Train, path=path)
    assert train == Train(
        steps=10,
        learning_rate=0.003,  # YAML 1.2, as DVC reads it: 3e-3 is a number
        model=Model(layers=4),
        speeds=(0.9, 1.0, 1.1),
        chunk=(4, 8),
        precision="bf16",
        limit=7,
        folder=Path("data/x"),
        shares={"train": 1.0},
        corpora=["no", "on"],  # words, not booleans
        resume=True,
    )
    assert all(isinstance(speed, float) for speed in train.speeds)


MINIMAL = "train: {{steps: {steps}, learning_rate: {rate}, model: {model}{more}}}"


def text(steps: str = "1", rate: str = "0.1", model: str = "{layers: 2}", more: str = "") -> str:
    return MINIMAL.format(steps=steps, rate=rate, model=model, more=more)


@pytest.mark.parametrize(
    ("yaml_text", "place", "complaint"),
    [
        (text(more=", stesp: 3"), "train.stesp", "did you mean 'steps'?"),
        (text(model="{layers: 2, droput: 0}"), "train.model.droput", "did you mean 'dropout'?"),
        (text(model="{}"), "train.model.layers", "missing key"),
        (text(steps="1.5"), "train.steps", "a whole number is expected, found 1.5"),
        (text(steps="true"), "train.steps", "a whole number is expected, found True"),
        (text(rate="fast"), "train.learning_rate", "a number is expected, found 'fast'"),
        (text(rate=""), "train.learning_rate", "found nothing"),
        (text(more=", precision: fp8"), "train.precision", "one of fp32, bf16"),
        (text(more=", chunk: [1]"), "train.chunk", "a list of 2"),
        (text(more=", speeds: [1, x]"), "train.speeds[1]", "a number is expected"),
        (text(more=", shares: {a: b}"), "train.shares.a", "a number is expected"),
        (text(more=", resume: yes"), "train.resume", "true or false"),
        (text(more=", limit: [1]"), "train.limit", "a whole number or text"),
        (text(steps="-1"), "train", "steps start at 0"),
        ("train: 3", "train", "a mapping of keys"),
        ("trian: {}", "", "the section 'train' is missing"),
        ("[1, 2]", "", "a mapping of sections is expected. Mend: write 'train:' on a line"),
        ("train: {steps: 1, steps: 2}", "", "the key 'steps' stands twice"),
        ("train: [", "", "not usable YAML in line 1"),
    ],
)
def test_a_mistake_is_named_with_its_place(yaml_text: str, place: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(yaml_text, "train", Train)
    message = str(caught.value)
    assert complaint in message
    assert message.startswith(f"params.yaml: {place}" if place else "params.yaml: ")


def test_the_nearest_section_is_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean 'trian'"):
        load_text("trian: {}", "train", Train)


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ConfigError, match="not there"):
        load("train", Train, path=path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load("train", Train, path=path)


def test_a_file_cannot_run_code() -> None:
    with pytest.raises(ConfigError, match="not usable YAML"):
        load_text("train: !!python/object/apply:os.getcwd []", "train", Train)
