"""Stage ``gate``: policy x records -> a verdict per variant, with each reason."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.scoring import ScoredUtterance, paired_difference, score
from data.shards import read_member
from governance.errors import AuricleError
from governance.gates import collect_facts, judge
from governance.params import load
from governance.policy import load_policy
from governance.records import read_record
from pipelines import _paths as paths
from pipelines._champion import promotion
from pipelines._params import GateParams
from pipelines._recognise import open_recognizer, text_of
from pipelines._splits import load_split
from pipelines._stage import StageRun, run_stage

_SEED = 1
_STAGES = ("validate", "split", "evaluate", "export", "quantize", "benchmark")


def main() -> None:
    """Judge fp32 and int8."""
    inputs = {stage: paths.report(stage) for stage in _STAGES}
    run_stage("gate", _body, inputs=inputs, outputs={})


def _body(run: StageRun) -> None:
    params = load("gate", GateParams)
    policy = load_policy(Path(params.policy))
    facts = collect_facts({stage: read_record(paths.report(stage)) for stage in _STAGES})
    for name in ("net_words_worse", "net_deletions_worse", "size_ratio"):
        facts[f"int8.{name}"] = facts.get(f"quantize.{name}")
    facts["int8.speedup"] = facts.get("benchmark.int8_speedup")
    champion = _champion(params.alias)
    facts["champion.version"] = champion["version"] if champion else None
    run.parameters = {"policy": params.policy, "alias": params.alias}
    run.figures = {"compared_with": facts["champion.version"], "verdicts": {}}
    for variant in ("fp32", "int8"):
        own = dict(facts)
        if champion:
            own["evaluate.wer_vs_champion_high"] = _against(champion, paths.MODELS / variant)
        verdict = judge(policy, own, variant=variant)
        run.figures["verdicts"][variant] = asdict(verdict)
        print(f"  {variant}: {'passed' if verdict.passed else 'REFUSED'}")
        for reason in verdict.reasons:
            if reason.outcome != "passed":
                print(f"    {reason.outcome} {reason.gate}: {reason.why}")


def _champion(alias: str) -> dict[str, Any] | None:
    """The version that stands at ``alias`` today, if its bundle is on this machine."""
    try:
        body = promotion(paths.MODEL_NAME, alias)
    except AuricleError:
        return None
    return body if Path(body["bundle"]).exists() else None


def _against(champion: dict[str, Any], folder: Path) -> float:
    """Upper bound of the paired WER difference to the champion on the same test recordings."""
    ours, theirs = _scored(folder), _scored(Path(champion["bundle"]))
    return paired_difference(theirs, ours, seed=_SEED).high


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
