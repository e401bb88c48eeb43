"""What stages tell of a bundle besides its weights; the graphs are proven in `training`."""

import ast
from pathlib import Path

import pytest

from governance import lineage
from pipelines.export import language_of

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_bundle_speaks_the_language_of_its_training_recordings() -> None:
    assert language_of(["en", "en"]) == "en"
    assert language_of(["de"]) == "de"
    assert language_of(["en", "de", "en"]) == "mul"  # ISO 639-2: several languages


@pytest.mark.parametrize("stage", sorted(lineage._TOLD))
def test_a_stage_records_what_an_auditor_asks_of_it(stage: str) -> None:
    """A label of the lineage that no stage answers would read `not recorded` for ever."""
    tree = ast.parse((ROOT / "pipelines" / f"{stage}.py").read_text())
    recorded = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for label, names in lineage._TOLD[stage]:
        assert {name.split(".")[0] for name in names} & recorded, label
