"""Stage ``package``: register each variant with its evidence, build the bentos, note it all down."""

from collections.abc import Mapping
from typing import Any

from features.bundle import Bundle
from governance.canonical import tree_digest
from governance.gates import VARIANTS, Reason, Verdict
from governance.params import load
from governance.records import StageRecord, plain
from governance.registry import Registry
from pipelines import _paths as paths
from pipelines._champion import newest_packages, open_ledger
from pipelines._evidence import CARD, Candidate, Records, log_evidence, register
from pipelines._params import PackageParams
from pipelines._records import read_records
from pipelines._stage import StageRun, run_stage
from pipelines.code import STAGES
from serving.packaging.bento import build_bento

_SERVED = ("int8", "fp32")  # in the order of preference: the first that passed is served
_VARIANTS = ("fp16", *_SERVED)


def main() -> None:
    """Register, build, append to the ledger."""
    run_stage(
        "package",
        _body,
        inputs={
            **{variant: paths.MODELS / variant for variant in VARIANTS},
            **{stage: paths.report(stage) for stage in STAGES if stage != "package"},
            "report": paths.EVALUATION_HTML,
            "data_docs": paths.DATA_DOCS,
        },
        outputs={"card": CARD},
    )


def _body(run: StageRun) -> None:
    params = load("package", PackageParams)
    records = read_records(paths.REPORTS)
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    run_id = _run(registry, records)
    verdicts = {
        name: read_verdict(value) for name, value in records["gate"].figures["verdicts"].items()
    }
    chosen = next((name for name in _SERVED if verdicts[name].passed), "")
    evidence = log_evidence(registry, run_id, records)
    events: dict[str, dict[str, Any]] = {}
    # The chosen variant comes last: the card beside the reports is its card.
    for name in sorted(_VARIANTS, key=lambda name: name == (chosen or "fp32")):
        folder = paths.MODELS / name
        candidate = Candidate(
            variant=name, folder=folder, digest=tree_digest(folder), verdict=verdicts[name]
        )
        candidate, bundle = register(registry, run_id, candidate, records, evidence)
        bento = _bento(candidate, chosen=name == chosen, gpu=params.gpu)
        registry.set_version_tags(paths.MODEL_NAME, candidate.version, {"bento": bento or "none"})
        root = paths.MLFLOW_ARTIFACTS / run_id / "artifacts"
        where = {
            "run_id": run_id,
            "bundle": (root / bundle).as_posix(),
            "records": (root / evidence["records"]).as_posix(),
            "bento": bento,
            "chosen": name == chosen,
        }
        events[name] = _note(where | _said(candidate, records["gate"]))
        word = "passed" if candidate.verdict.passed else "refused"
        print(f"  {name}: version {candidate.version}, {word}")
    run.parameters = {"gpu": params.gpu}
    run.figures = {
        "run_id": run_id,
        "chosen": chosen,
        "versions": {name: body["version"] for name, body in events.items()},
        "bentos": {
            "gpu" if name == "fp16" else "cpu": body["bento"]
            for name, body in events.items()
            if body["bento"]
        },
        "events": events,
    }


def read_verdict(document: Mapping[str, Any]) -> Verdict:
    """A verdict as the gate stage recorded it."""
    return Verdict(
        variant=document["variant"],
        passed=document["passed"],
        reasons=tuple(Reason(**reason) for reason in document["reasons"]),
    )


def _run(registry: Registry, records: Records) -> str:
    """The run of the training, or one that stands for it where MLflow's store is younger."""
    train = records["train"]
    run_id: str = train.figures["run_id"]
    if registry.exists(run_id):
        return run_id
    if found := registry.find_run(paths.EXPERIMENT, "restored_from", run_id):
        return found
    restored = registry.start_run(paths.EXPERIMENT, "restored", {"restored_from": run_id})
    registry.log_params(restored, {"train": train.params})
    for name, points in train.figures["curves"].items():
        for step, value in points:
            registry.log_metrics(restored, {name: value}, step=int(step))
    for name, path in (("manifest", paths.SPLIT), ("features", paths.FEATURES)):
        registry.log_dataset(
            restored,
            name=name,
            digest=train.inputs[name],
            source=f"dvc://{path.as_posix()}",
            context="training",
        )
    registry.finish(restored)
    return restored


def _bento(candidate: Candidate, *, chosen: bool, gpu: bool) -> str:
    """The tag of the version's bento; empty where it has none: what was refused is not shipped."""
    half = candidate.variant == "fp16"
    if not candidate.verdict.passed or not (gpu if half else chosen):
        return ""
    built = build_bento(
        candidate.folder,
        build_root=paths.BENTO_ROOT,
        variant="gpu" if half else "cpu",
        model_version=str(candidate.version),
    )
    print(f"  bento {built.tag} ({candidate.variant}), {built.size_bytes / 1e6:.1f} MB")
    return built.tag


def _said(candidate: Candidate, gate: StageRecord) -> dict[str, Any]:
    """What the gates said about a version, by which policy and against whom."""
    return {
        "model": paths.MODEL_NAME,
        "version": candidate.version,
        "variant": candidate.variant,
        "bundle_digest": candidate.digest,
        "passed": candidate.verdict.passed,
        "refusals": [f"{reason.gate}: {reason.why}" for reason in candidate.verdict.refusals],
        "policy": gate.inputs["policy"],
        "judged_alias": gate.params["alias"],
        "compared_with": gate.figures["compared_with"],
        "domain": Bundle.load(candidate.folder).config.domain,
    }


def _note(body: dict[str, Any]) -> dict[str, Any]:
    """Append what was packaged, unless the ledger's newest word on this version says the same."""
    body = plain(body, where="package")
    if newest_packages().get(body["version"]) != body:
        open_ledger().append("package", body, actor="pipeline")
    return body


if __name__ == "__main__":
    main()
