"""Stage ``gate``: policy x records -> a verdict per variant, with each reason."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.scoring import ScoredUtterance, paired_difference, score
from data.shards import read_member
from governance.errors import AuricleError, ConfigError, TamperError
from governance.gates import VARIANTS, Fact, collect_facts, judge
from governance.params import load
from governance.policy import Policy, load_policy
from governance.records import read_record
from pipelines import _paths as paths
from pipelines._champion import bundle_of, promotions
from pipelines._params import GateParams
from pipelines._recognise import open_recognizer, text_of
from pipelines._splits import load_split
from pipelines._stage import SEED, StageRun, run_stage

_STAGES = ("validate", "split", "evaluate", "export", "quantize", "benchmark")
_HALF = "export.fp16."


def main() -> None:
    """Judge fp32, fp16 and int8."""
    run_stage(
        "gate",
        _body,
        inputs={
            **{stage: paths.report(stage) for stage in _STAGES},
            # what the comparison with the champion scores again
            **{variant: paths.MODELS / variant for variant in VARIANTS},
            "manifest": paths.SPLIT,
            "shards": paths.SHARDS,
        },
        outputs={},
    )


def _body(run: StageRun) -> None:
    params = load("gate", GateParams)
    policy = _policy(params)
    run.inputs["policy"] = Path(params.policy)  # evidence like the records: its digest is kept
    run.parameters = {"policy": params.policy, "alias": params.alias}
    facts = collect_facts({stage: read_record(paths.report(stage)) for stage in _STAGES})
    standing = promotions(paths.MODEL_NAME, params.alias)
    champion = standing[-1].body if standing else None
    facts["champion.version"] = champion["version"] if champion else None
    theirs = None
    if champion and (folder := _bundle_of_champion(champion)):
        run.inputs["champion"] = folder
        theirs = _scored(folder)
    run.figures = {"compared_with": facts["champion.version"], "verdicts": {}}
    for variant in VARIANTS:
        own = facts_of(variant, facts)
        if theirs is not None:
            ours = _scored(paths.MODELS / variant)
            own["evaluate.wer_vs_champion_high"] = paired_difference(theirs, ours, seed=SEED).high
        verdict = judge(policy, own, variant=variant)
        run.figures["verdicts"][variant] = asdict(verdict)
        print(f"  {variant}: {'passed' if verdict.passed else 'REFUSED'}")
        for reason in verdict.reasons:
            if reason.outcome != "passed":
                print(f"    {reason.outcome} {reason.gate}: {reason.why}")


def _policy(params: GateParams) -> Policy:
    policy = load_policy(Path(params.policy))
    if policy.alias != params.alias:
        raise ConfigError(
            f"gate.alias is '{params.alias}', but the policy speaks of '{policy.alias}'",
            item=f"params.yaml and {params.policy}",
            mend="name the same alias in both: the comparison is with what stands there",
        )
    return policy


def facts_of(variant: str, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Facts under the names that the policy uses for ``variant``.

    int8 and fp16 are measured against fp32. fp16 was also evaluated as a whole, through the CPU
    provider, so its error rates are its own.
    """
    own = dict(facts)
    if variant == "int8":
        for name in ("net_words_worse", "net_deletions_worse", "size_ratio"):
            own[f"int8.{name}"] = facts.get(f"quantize.{name}")
        own["int8.speedup"] = facts.get("benchmark.int8_speedup")
    if variant == "fp16":
        half = {k.removeprefix(_HALF): v for k, v in facts.items() if k.startswith(_HALF)}
        own |= {f"fp16.{name}": value for name, value in half.items()}
        file_wer, stream_wer = half.get("test_wer.point"), half.get("test_wer_stream.point")
        own["evaluate.wer_file"], own["evaluate.wer_stream_lm"] = file_wer, stream_wer
        gap = None
        if isinstance(file_wer, float) and isinstance(stream_wer, float):
            gap = stream_wer - file_wer
        own["evaluate.wer_stream_file_gap"] = gap
    return own


def _bundle_of_champion(champion: dict[str, Any]) -> Path | None:
    """The champion's bundle; None where its bytes are gone: the comparison fails.

    Other bytes in its place are no champion to compare with, and stop the stage.
    """
    try:
        return bundle_of(champion)
    except TamperError:
        raise
    except AuricleError as error:
        print(f"  no comparison with the champion: {error}")
        return None


def _scored(folder: Path) -> list[ScoredUtterance]:
    """Test recordings through a bundle the way the service runs it: its front end, its decoder."""
    recognizer = open_recognizer(folder)
    scored = []
    for row in load_split("test"):
        audio = read_member(paths.SHARDS, row.shard, row.offset, row.length)
        text = text_of(recognizer, audio, name=row.utterance_id)
        scored.append(score(row.utterance_id, row.speaker, row.normalised_text, text))
    return scored


if __name__ == "__main__":
    main()
