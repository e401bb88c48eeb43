"""Stage `gate`: which figures speak for a variant, and what it refuses to compare with."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from data.scoring import score
from governance.canonical import file_digest, tree_digest
from governance.gates import VARIANTS, Fact, judge
from governance.policy import load_policy
from governance.records import StageRecord, read_record, write_record
from pipelines import _paths as paths
from pipelines import gate
from pipelines._champion import open_ledger

ROOT = Path(__file__).resolve().parent.parent.parent
POLICY = ROOT / "governance" / "policy.yaml"
FACTS: dict[str, Fact] = {
    "validate.success": True,
    "split.speaker_leakage": 0,
    "split.speakers_may_leak": False,
    "evaluate.wer_file": 0.05,
    "evaluate.wer_stream_lm": 0.07,
    "evaluate.wer_stream_file_gap": 0.02,
    "evaluate.worst_slice_wer": 0.2,
    "export.masked_stream_max_abs_diff": 3e-5,
    "export.onnx_max_abs_diff": 2e-4,
    "export.fp16.token_agreement": 0.999,
    "export.fp16.net_words_worse": 0,
    "export.fp16.net_deletions_worse": 0,
    "export.fp16.test_wer.point": 0.06,
    "export.fp16.test_wer_stream.point": 0.08,
    "quantize.net_words_worse": 1,
    "quantize.net_deletions_worse": 0,
    "quantize.size_ratio": 3.5,
    "benchmark.int8_speedup": 1.5,
    "champion.version": None,
}


SCORED = score("an-utterance", "anna", "one two", "one two")


@pytest.mark.parametrize("variant", VARIANTS)
def test_good_figures_pass(variant: str) -> None:
    verdict = judge(load_policy(POLICY), gate.facts_of(variant, FACTS), variant=variant)
    assert verdict.passed, verdict.refusals
    outcomes = {reason.gate: reason for reason in verdict.reasons}
    if variant == "fp16":
        assert outcomes["wer_file"].value == 0.06 and outcomes["wer_stream"].value == 0.08
        speed = outcomes["fp16_speed"]
        assert speed.outcome == "warned" and "was not measured" in speed.why


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"export.fp16.test_wer.point": 0.9}, {"wer_file"}),
        ({"export.fp16.test_wer_stream.point": 0.9}, {"wer_stream", "stream_file_gap"}),
        ({"export.fp16.net_words_worse": 3}, {"fp16_words"}),
        ({"export.fp16.net_deletions_worse": 3}, {"fp16_deletions"}),
        ({"export.fp16.token_agreement": 0.9}, {"fp16_tokens"}),
    ],
)
def test_bad_figures_of_fp16_refuse_fp16_alone(change: dict[str, Fact], refused: set[str]) -> None:
    policy, facts = load_policy(POLICY), FACTS | change
    half = judge(policy, gate.facts_of("fp16", facts), variant="fp16")
    assert {reason.gate for reason in half.refusals} == refused
    for variant in ("fp32", "int8"):
        assert judge(policy, gate.facts_of(variant, facts), variant=variant).passed


def test_an_fp16_that_was_not_measured_does_not_pass_on_the_figures_of_another() -> None:
    facts = {name: value for name, value in FACTS.items() if ".fp16." not in name}
    verdict = judge(load_policy(POLICY), gate.facts_of("fp16", facts), variant="fp16")
    assert {"wer_file", "wer_stream", "fp16_words"} <= {r.gate for r in verdict.refusals}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records and outputs of every stage before `gate`, and the shipped policy."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "governance").mkdir()
    shutil.copyfile(POLICY, tmp_path / "governance" / "policy.yaml")
    monkeypatch.chdir(tmp_path)
    paths.REPORTS.mkdir(parents=True)
    for stage in ("validate", "split", "evaluate", "export", "quantize", "benchmark"):
        figures = {k.split(".", 1)[1]: v for k, v in FACTS.items() if k.startswith(f"{stage}.")}
        record = StageRecord(stage=stage, figures=figures, started_at="now", wall_s=1)
        write_record(paths.report(stage), record)
    paths.SHARDS.mkdir(parents=True)
    paths.SPLIT.parent.mkdir(parents=True)
    paths.SPLIT.write_bytes(b"rows of the split")
    for variant in VARIANTS:
        (paths.MODELS / variant).mkdir(parents=True)
    return tmp_path


def promoted(digest: str = "") -> dict[str, Any]:
    """A ledger whose champion has its bytes in `bundle`."""
    folder = Path("bundle")
    folder.mkdir()
    (folder / "bundle.json").write_text("champion")
    body = {
        "model": "auricle",
        "alias": "champion",
        "version": 7,
        "variant": "int8",
        "bundle": folder.as_posix(),
        "bundle_digest": digest or tree_digest(folder),
    }
    open_ledger().append("promote", body, actor="owner")
    return body


def test_the_policy_is_part_of_the_evidence(workspace: Path) -> None:
    gate.main()
    record = read_record(paths.report("gate"), stage="gate")
    assert record.inputs["policy"] == file_digest(workspace / "governance" / "policy.yaml")
    assert set(record.figures["verdicts"]) == set(VARIANTS)
    assert all(verdict["passed"] for verdict in record.figures["verdicts"].values())


def test_what_was_scored_again_is_part_of_the_evidence(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Path] = []
    monkeypatch.setattr(gate, "_scored", lambda folder: scored.append(folder) or [SCORED])
    body = promoted()
    gate.main()
    inputs = read_record(paths.report("gate"), stage="gate").inputs
    assert scored == [Path(body["bundle"]), *(paths.MODELS / variant for variant in VARIANTS)]
    assert inputs["champion"] == body["bundle_digest"]
    assert {*VARIANTS, "manifest", "shards"} <= set(inputs)
    assert inputs["manifest"] == file_digest(paths.SPLIT)


def test_a_policy_of_another_alias_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("alias: champion", "alias: staging"))
    with pytest.raises(SystemExit) as ended:
        gate.main()
    assert ended.value.code == 2
    assert "gate.alias is 'staging', but the policy speaks of 'champion'" in capsys.readouterr().err


def test_other_bytes_in_the_champions_place_stop_the_stage(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = promoted()
    (Path(body["bundle"]) / "bundle.json").write_text("the next candidate")
    with pytest.raises(SystemExit) as ended:
        gate.main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("auricle gate: bundle: holds ") and "version 7" in err
    assert not paths.report("gate").exists()


def test_without_the_champions_bytes_nothing_replaces_it(workspace: Path) -> None:
    shutil.rmtree(promoted()["bundle"])
    gate.main()
    figures = read_record(paths.report("gate"), stage="gate").figures
    assert figures["compared_with"] == 7
    for verdict in figures["verdicts"].values():
        failed = {r["gate"]: r["why"] for r in verdict["reasons"] if r["outcome"] == "failed"}
        assert set(failed) == {"not_worse_than_champion"}
        assert "was not measured" in failed["not_worse_than_champion"]
