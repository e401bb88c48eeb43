import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.errors import ConfigError, GateRefused
from governance.gates import Fact, collect_facts, judge, require
from governance.policy import load_policy, parse_policy
from governance.records import Interval, StageRecord, plain

SHIPPED = Path(__file__).parents[2] / "governance" / "policy.yaml"
GOOD: dict[str, Fact] = {
    "validate.success": True,
    "split.speaker_leakage": 0,
    "split.speakers_may_leak": False,
    "evaluate.wer_file": 0.05,
    "evaluate.wer_stream_lm": 0.07,
    "evaluate.wer_stream_file_gap": 0.02,
    "evaluate.worst_slice_wer": 0.2,
    "export.masked_stream_max_abs_diff": 3e-5,
    "export.onnx_max_abs_diff": 2e-4,
    "int8.net_words_worse": 1,
    "int8.net_deletions_worse": 0,
    "int8.speedup": 1.5,
    "int8.size_ratio": 3.6,
    "fp16.token_agreement": 0.999,
    "fp16.net_words_worse": 0,
    "fp16.net_deletions_worse": 0,
    "fp16.gpu_speedup": 1.4,
    "champion.version": None,
}


@pytest.mark.parametrize("variant", ["fp32", "fp16", "int8"])
def test_good_figures_pass_the_shipped_policy(variant: str) -> None:
    verdict = judge(load_policy(SHIPPED), GOOD, variant=variant)
    assert verdict.passed and not verdict.refusals
    require(verdict, item="auricle version 1")
    outcomes = {reason.gate: reason.outcome for reason in verdict.reasons}
    assert outcomes.pop("not_worse_than_champion") == "skipped"
    assert set(outcomes.values()) == {"passed"}
    for other in ("int8", "fp16"):
        assert any(gate.startswith(other) for gate in outcomes) == (variant == other)


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"validate.success": False}, "data_contract"),
        ({"split.speaker_leakage": 1}, "speaker_leakage"),
        ({"evaluate.wer_file": 0.36}, "wer_file"),
        ({"evaluate.wer_file": None}, "wer_file"),
        ({"evaluate.wer_file": math.nan}, "wer_file"),
        ({"evaluate.wer_file": "low"}, "wer_file"),
        ({"evaluate.wer_stream_lm": 0.41}, "wer_stream"),
        ({"evaluate.wer_stream_file_gap": 0.07}, "stream_file_gap"),
        ({"export.masked_stream_max_abs_diff": 1.1e-4}, "masked_is_stream"),
        ({"export.onnx_max_abs_diff": 1.1e-3}, "onnx_is_torch"),
        ({"int8.net_words_worse": 3}, "int8_words"),
        ({"int8.net_deletions_worse": 3}, "int8_deletions"),
        ({"int8.speedup": 1.29}, "int8_speed"),
        ({"int8.size_ratio": 3.2}, "int8_size"),
        ({"champion.version": 4}, "not_worse_than_champion"),
        ({"champion.version": 4, "evaluate.wer_vs_champion_high": 0.02}, "not_worse_than_champion"),
    ],
)
def test_each_bad_figure_is_refused_by_its_gate_and_said(
    change: dict[str, Fact], gate: str
) -> None:
    verdict = judge(load_policy(SHIPPED), GOOD | change, variant="int8")
    assert not verdict.passed
    assert [reason.gate for reason in verdict.refusals] == [gate]
    with pytest.raises(GateRefused) as caught:
        require(verdict, item="auricle version 2")
    assert gate in str(caught.value) and "auricle version 2" in str(caught.value)


def test_an_advisory_gate_warns_without_refusing() -> None:
    verdict = judge(load_policy(SHIPPED), GOOD | {"evaluate.worst_slice_wer": 0.9}, variant="fp32")
    assert verdict.passed
    assert [r.gate for r in verdict.reasons if r.outcome == "warned"] == ["worst_slice"]


def test_a_champion_that_nobody_spoke_of_excuses_nothing() -> None:
    facts = {name: value for name, value in GOOD.items() if name != "champion.version"}
    verdict = judge(load_policy(SHIPPED), facts, variant="fp32")
    assert [reason.gate for reason in verdict.refusals] == ["not_worse_than_champion"]


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match="int4"):
        judge(load_policy(SHIPPED), GOOD, variant="int4")


GATE = """
schema_version: 1
alias: champion
gates:
  - {{name: a, metric: m, op: "{op}", threshold: {threshold}, unit: x, owner: o, date: 2026-01-01,
     reason: because it must be so{more}}}
"""


def policy_text(op: str = "<=", threshold: str = "1", more: str = "") -> str:
    return GATE.format(op=op, threshold=threshold, more=more)


def test_no_gate_for_a_variant_is_no_pass() -> None:
    policy = parse_policy(policy_text(more=", applies_to: int8"))
    verdict = judge(policy, {"m": 0}, variant="fp32")
    assert not verdict.passed
    with pytest.raises(GateRefused, match="no gate concerns this variant"):
        require(verdict, item="x")


@given(value=st.floats(allow_nan=True), threshold=st.floats(-1e6, 1e6))
def test_a_gate_passes_exactly_when_its_condition_holds(value: float, threshold: float) -> None:
    for op, holds in {"<=": value <= threshold, ">=": value >= threshold}.items():
        policy = parse_policy(policy_text(op, repr(threshold)))
        assert judge(policy, {"m": value}, variant="fp32").passed == holds


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (policy_text(op="~"), "gates.a.op"),
        (policy_text(threshold="[1]"), "gates.a.threshold"),
        (policy_text(threshold="low"), "'<=' needs a number"),
        (policy_text(more=", treshold: 1"), "gates.a.treshold"),
        (policy_text(more=", missing: skip"), "'unless: FACT' go together"),
        (policy_text(more=", applies_to: int4"), "gates.a.applies_to"),
        (policy_text().replace("owner: o, ", ""), "gates.a.owner"),
        (policy_text().replace("2026-01-01", "soon"), "gates.a.date"),
        (policy_text().replace("name: a, ", ""), "gates.number 1.name"),
        (policy_text().replace("schema_version: 1", "schema_version: 2"), "schema_version"),
        (policy_text() + policy_text().split("gates:")[1], "gate 'a' stands twice"),
        ("schema_version: 1\nalias: champion\ngates: []", "gates"),
        ("just words", "policy.yaml"),
        ("a: [", "not usable YAML"),
    ],
)
def test_a_mistake_in_the_policy_names_gate_and_field(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_policy(text)
    assert complaint in str(caught.value)


def test_a_missing_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy\.yaml"):
        load_policy(tmp_path / "policy.yaml")


def test_facts_are_the_flat_scalars_of_the_records() -> None:
    figures = {
        "test": {"stream": {"wer": plain(Interval(low=0.1, point=0.2, high=0.3))}},
        "curve": [1, 2],
        "success": True,
        "note": None,
    }
    record = StageRecord(stage="evaluate", figures=figures, started_at="t", wall_s=0)
    assert collect_facts({"evaluate": record}) == {
        "evaluate.test.stream.wer.low": 0.1,
        "evaluate.test.stream.wer.point": 0.2,
        "evaluate.test.stream.wer.high": 0.3,
        "evaluate.success": True,
        "evaluate.note": None,
    }
