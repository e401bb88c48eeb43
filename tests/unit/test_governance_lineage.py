import dataclasses
import json
import re
from collections.abc import Iterator

import pytest

from governance.cards import render_model_card
from governance.gates import Reason, Verdict
from governance.lineage import Lineage, Node, VersionFacts, build_chain, render_text, to_json
from governance.records import Interval, SliceScore, StageRecord, plain, record_digest

CLEAN = {"git_commit": "c0ffee", "git_dirty": "false"}
EVIL = "<script>alert(1)</script> | ```"


def sha(name: str) -> str:
    return f"sha256:{name}"


def record(
    stage: str,
    inputs: dict[str, str],
    outputs: dict[str, str],
    figures: dict[str, object] | None = None,
    params: dict[str, object] | None = None,
) -> StageRecord:
    return StageRecord(
        stage=stage,
        inputs={"code": sha(f"code-{stage}")} | {name: sha(v) for name, v in inputs.items()},
        outputs={name: sha(value) for name, value in outputs.items()},
        figures=plain(figures or {}),
        params=params or {},
        environment=CLEAN,
        started_at="2026-01-01T00:00:00+00:00",
        wall_s=1,
    )


def score(value: str, words: int, wer: float) -> SliceScore:
    interval = Interval(low=wer / 2, point=wer, high=wer * 1.5)
    return SliceScore(name="speaker", value=value, utterances=9, words=words, wer=interval)


@pytest.fixture
def records() -> dict[str, StageRecord]:
    wer = Interval(low=0.05, point=0.07, high=0.1)
    evaluation = {
        "test": {"stream_lm": {"wer": wer}},
        "slices": [score("anna", 100, 0.2), score(EVIL, 90, 0.4), score("few", 3, 0.9)],
    }
    made = [
        record(
            "ingest",
            {"shards": "shards"},
            {"all": "all"},
            {"shards": {"barista/shard-0.tar": sha("s0")}, "licences": ["Apache-2.0"]},
            {"corpora": ["builtin"]},
        ),
        # nothing was quarantined: the accepted manifest has the very bytes of the first one
        record("validate", {"all": "all"}, {"accepted": "all"}, {"success": True}),
        record("split", {"accepted": "all"}, {"split": "split"}),
        record(
            "featurize",
            {"split": "split"},
            {"features": "features"},
            {"fingerprint": "fs1-0a", "index_digest": sha("index")},
        ),
        record(
            "publish",
            {"split": "split", "features": "features"},
            {"frames": "frames"},
            params={"training_service": "training_v1"},
        ),
        record(
            "train",
            {"split": "split", "features": "features", "frames": "frames"},
            {"checkpoint": "checkpoint"},
            {"steps": 2300},
        ),
        record("evaluate", {"checkpoint": "checkpoint"}, {"decoder": "decoder"}, evaluation),
        record(
            "export",
            {"checkpoint": "checkpoint", "decoder": "decoder"},
            {"fp32": "fp32"},
            {"feature_fingerprint": "fs1-0a"},
        ),
        record("quantize", {"fp32": "fp32"}, {"int8": "int8"}, {"net_words_worse": 1}),
    ]
    by_stage = {entry.stage: entry for entry in made}
    verdicts = {"verdicts": {"int8": {"passed": True}}}
    gate = record("gate", {}, {}, verdicts)
    inputs = {stage: record_digest(by_stage[stage]) for stage in ("validate", "quantize")}
    return by_stage | {"gate": dataclasses.replace(gate, inputs=inputs)}


VERSION = VersionFacts(
    model="auricle",
    version=3,
    run_id="run-1",
    bundle_digest=sha("int8"),
    alias="champion",
    variant="int8",
    promoted_by="owner",
)


def chain(records: dict[str, StageRecord]) -> Lineage:
    return build_chain(records, VERSION)


def test_the_chain_runs_from_the_alias_to_shards_checks_service_and_commit(
    records: dict[str, StageRecord],
) -> None:
    lineage = chain(records)
    assert lineage.intact and lineage.commits == ("commit c0ffee",)
    text = render_text(lineage)
    expected = [
        "auricle@champion",
        "version 3 (int8)",
        "MLflow run run-1",
        "bundle sha256:int8",
        "stage quantize",
        "fp32 sha256:fp32",
        "stage export",
        "checkpoint sha256:checkpoint",
        "stage train",
        "stage split",
        "Great Expectations passed: True",
        "all sha256:all",
        "stage ingest",
        "shards sha256:shards  [from outside the pipeline]",
        "shard barista/shard-0.tar sha256:s0",
        "index: sha256:index",
        "Feast feature service: training_v1",
        "judged by gate",
        "gates passed: True",
        "git commit c0ffee",
        "every link holds: 9 stages",
    ]
    assert "not recorded" not in text
    assert text.count("feature fingerprint: fs1-0a") == 2, "of featurize and of export"
    places = [text.find(part) for part in expected]
    assert -1 not in places, [p for p, at in zip(expected, places, strict=True) if at < 0]
    assert places == sorted(places)


@pytest.fixture
def equal(records: dict[str, StageRecord]) -> dict[str, StageRecord]:
    """With given splits and nothing quarantined, three stages make the very same manifest."""
    for stage in ("featurize", "publish", "train"):
        inputs = records[stage].inputs
        del inputs["split"]
        inputs["manifest"] = sha("all")
    return records | {"split": record("split", {"accepted": "all"}, {"manifest": "all"})}


def test_equal_bytes_hide_neither_the_validation_nor_the_split(
    equal: dict[str, StageRecord],
) -> None:
    lineage = chain(equal)
    assert lineage.intact
    makers = {
        node.title: {child.title for made in node.children for child in made.children}
        for node in nodes(lineage.root)
        if node.title.startswith("stage ") and "told above" not in node.notes
    }
    for stage in ("featurize", "publish", "train"):
        assert "stage split" in makers[f"stage {stage}"], stage
    assert makers["stage split"] == {"stage validate"}
    assert makers["stage validate"] == {"stage ingest"}
    assert "Great Expectations passed: True" in render_text(lineage)


def nodes(root: Node) -> Iterator[Node]:
    yield root
    for child in root.children:
        yield from nodes(child)


def test_a_stage_never_reads_what_a_later_one_made(equal: dict[str, StageRecord]) -> None:
    del equal["ingest"]
    lineage = chain(equal)
    assert any(reason.startswith("stage validate read 'all'") for reason in lineage.broken)


def test_a_judge_names_the_champion_that_it_compared_with(records: dict[str, StageRecord]) -> None:
    inputs = records["gate"].inputs | {"champion": sha("standing"), "policy": sha("policy")}
    lineage = chain(records | {"gate": dataclasses.replace(records["gate"], inputs=inputs)})
    assert lineage.intact, lineage.broken
    text = render_text(lineage)
    assert f"policy {sha('policy')}; compared with the champion {sha('standing')}" in text


def test_a_shared_ancestor_is_told_once(records: dict[str, StageRecord]) -> None:
    text = render_text(chain(records))
    assert len(re.findall(r"stage split  \[at ", text)) == 1
    assert "stage split  [told above]" in text


def test_the_json_is_plain_and_says_the_same(records: dict[str, StageRecord]) -> None:
    made = json.loads(to_json(chain(records)))
    assert made["intact"] is True and made["broken"] == []
    assert made["root"]["title"] == "auricle@champion"


def test_a_digest_that_nobody_made_is_said_with_the_stage_that_moved_on(
    records: dict[str, StageRecord],
) -> None:
    moved = dataclasses.replace(records["featurize"], outputs={"features": sha("newer")})
    lineage = chain(records | {"featurize": moved})
    assert not lineage.intact
    text = render_text(lineage)
    assert "BROKEN: stage train read 'features' sha256:features" in text
    assert "stage featurize now has sha256:newer: it ran again since" in text
    assert "every link holds" not in text


def test_an_unknown_bundle_and_a_judge_of_other_records_are_broken_links(
    records: dict[str, StageRecord],
) -> None:
    unknown = build_chain(records, dataclasses.replace(VERSION, bundle_digest=sha("lost")))
    assert "the registered version read 'bundle' sha256:lost" in unknown.broken[0]
    again = dataclasses.replace(records["quantize"], wall_s=2)
    other = chain(records | {"quantize": again})
    assert any(reason.startswith("gate read 'quantize'") for reason in other.broken)


def test_local_changes_are_told(records: dict[str, StageRecord]) -> None:
    dirty = dataclasses.replace(records["train"], environment=CLEAN | {"git_dirty": "true"})
    assert "commit c0ffee with local changes" in chain(records | {"train": dirty}).commits


def verdict() -> Verdict:
    reason = Reason(
        gate="int8_speed",
        metric="int8.speedup",
        value=1.5,
        op=">=",
        threshold=1.3,
        unit="times",
        outcome="passed",
        why=f"1.5 >= 1.3 {EVIL}",
    )
    return Verdict(variant="int8", passed=True, reasons=(reason,))


def test_the_card_says_what_the_records_say_in_both_forms(records: dict[str, StageRecord]) -> None:
    card = render_model_card(records, verdict(), chain(records), limits=("Not for music.",))
    for part in (
        "Intended use",
        "test.stream_lm.wer",
        "7.00%",
        "5.00% to 10.00%",
        "quantize net_words_worse",
        "int8_speed",
        "Apache-2.0",
        "synthetic voices only",
        "Not for music.",
        "stage ingest",
        "1 slices with fewer than 50 words are left out",
    ):
        assert part in card.markdown, part
        assert part in card.html, part
    worst = [card.markdown.find(part) for part in ("40.00%", "20.00%")]
    assert worst == sorted(worst) and -1 not in worst
    assert "90.00%" not in card.markdown


def test_the_card_is_self_contained_and_escapes_what_data_says(
    records: dict[str, StageRecord],
) -> None:
    card = render_model_card(records, verdict(), chain(records))
    assert "<script" not in card.html and "&lt;script&gt;" in card.html
    assert not re.search(r"(?:src|href)\s*=|@import|url\(", card.html)
    rows = [line for line in card.markdown.splitlines() if "alert(1)" in line and line[0] == "|"]
    assert rows and all("\\|" in row and "<script" not in row for row in rows)


def test_what_was_not_recorded_is_said_to_be_so(records: dict[str, StageRecord]) -> None:
    bare = {"export": records["export"]}
    card = render_model_card(bare, verdict(), build_chain(bare, VERSION))
    assert card.markdown.count("not recorded") >= 4
    assert "BROKEN" in card.markdown
