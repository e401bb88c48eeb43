"""Stage ``package``: register each variant with its evidence, build the bentos, note it all down."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.bundle import Bundle
from governance.canonical import tree_digest, write_atomic
from governance.cards import ModelCard, render_model_card
from governance.gates import Reason, Verdict
from governance.lineage import VersionFacts, build_chain
from governance.params import load
from governance.records import StageRecord
from governance.registry import Registry
from pipelines import _paths as paths
from pipelines._champion import open_ledger
from pipelines._params import PackageParams
from pipelines._records import read_records
from pipelines._stage import StageRun, run_stage
from serving.bento import build_bento

_VARIANTS = ("int8", "fp32")  # in the order of preference: the first that passed is served
_CARD = paths.REPORTS / "model_card.html"
_LIMITS = (
    "word confidence is entropy-based and not calibrated",
    "the fp16 GPU build is checked for structure on the CPU and has not been run on a GPU",
)


def main() -> None:
    """Register, build, append to the ledger."""
    run_stage(
        "package",
        _body,
        inputs={"fp32": paths.FP32, "fp16": paths.FP16, "int8": paths.INT8},
        outputs={"card": _CARD},
    )


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """One variant on its way into the registry."""

    variant: str
    folder: Path
    digest: str
    verdict: Verdict
    version: int = 0


def _body(run: StageRun) -> None:
    params = load("package", PackageParams)
    records = read_records(paths.REPORTS)
    registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
    run_id = _run(registry, records)
    verdicts = {
        name: read_verdict(value) for name, value in records["gate"].figures["verdicts"].items()
    }
    chosen = next((name for name in _VARIANTS if verdicts[name].passed), "")
    figures: dict[str, Any] = {"run_id": run_id, "chosen": chosen, "versions": {}, "bentos": {}}
    _log_evidence(registry, run_id, records)
    # The chosen variant comes last, so that the newest event of the ledger is the one to promote.
    for name in sorted(_VARIANTS, key=lambda name: name == chosen):
        folder = paths.MODELS / name
        candidate = _Candidate(
            variant=name, folder=folder, digest=tree_digest(folder), verdict=verdicts[name]
        )
        version = _register(registry, run_id, candidate, records)
        figures["versions"][name] = version
        bento = _build(folder, "cpu", version) if name == (chosen or "fp32") else None
        if bento:
            figures["bentos"]["cpu"] = bento
        event = _event(registry, run_id, candidate, version, bento, name == chosen, records)
        print(f"  {name}: version {version}, {'passed' if event['passed'] else 'refused'}")
    if params.gpu:
        figures["bentos"]["gpu"] = _build(paths.FP16, "gpu", figures["versions"][chosen or "fp32"])
    run.parameters = {"gpu": params.gpu}
    run.figures = figures


def read_verdict(document: Mapping[str, Any]) -> Verdict:
    """A verdict as the gate stage recorded it."""
    return Verdict(
        variant=document["variant"],
        passed=document["passed"],
        reasons=tuple(Reason(**reason) for reason in document["reasons"]),
    )


def _run(registry: Registry, records: Mapping[str, StageRecord]) -> str:
    """The run of the training, or a new one where MLflow's store is younger than the records."""
    run_id: str = records["train"].figures["run_id"]
    if registry.exists(run_id):
        return run_id
    run_id = registry.start_run(paths.EXPERIMENT, "restored", {"restored_from": run_id})
    registry.log_params(run_id, {"train": records["train"].params})
    return run_id


def _log_evidence(registry: Registry, run_id: str, records: Mapping[str, StageRecord]) -> None:
    """What a model owner looks at: figures, report, records, data checks."""
    test = records["evaluate"].figures["test"]
    metrics = {f"test_wer.{name}": value["wer"]["point"] for name, value in test.items()}
    for name, value in test["full_lm"]["slices"].items():
        metrics |= {f"test_wer_by_{name}/{row['value']}": row["wer"]["point"] for row in value}
    registry.log_metrics(run_id, metrics)
    registry.log_artifacts(run_id, paths.EVALUATION_HTML, "reports")
    if paths.DATA_DOCS.exists():
        registry.log_artifacts(run_id, paths.DATA_DOCS, "data_docs")
    with tempfile.TemporaryDirectory() as folder:
        for stage in records:
            shutil.copyfile(paths.report(stage), Path(folder) / f"{stage}.json")
        registry.log_artifacts(run_id, Path(folder), "records")


def _register(
    registry: Registry, run_id: str, candidate: _Candidate, records: Mapping[str, StageRecord]
) -> int:
    """The version of these very bytes in this run: the one that exists, or a new one."""
    for known in registry.versions(paths.MODEL_NAME):
        if known.run_id == run_id and known.tags.get("bundle_digest") == candidate.digest:
            version = known.version
            break
    else:
        registry.log_artifacts(run_id, candidate.folder, f"bundles/{candidate.variant}")
        version = registry.register_version(
            paths.MODEL_NAME,
            run_id,
            f"bundles/{candidate.variant}",
            {"bundle_digest": candidate.digest, "variant": candidate.variant},
            "",
        )
    card = _card(candidate, version, run_id, records)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model_card.md").write_text(card.markdown, encoding="utf-8")
        (Path(folder) / "model_card.html").write_text(card.html, encoding="utf-8")
        registry.log_artifacts(run_id, Path(folder), f"cards/{candidate.variant}")
    write_atomic(_CARD, card.html)
    registry.describe_version(paths.MODEL_NAME, version, card.markdown)
    registry.set_version_tags(paths.MODEL_NAME, version, _tags(candidate, records))
    return version


def _card(
    candidate: _Candidate, version: int, run_id: str, records: Mapping[str, StageRecord]
) -> ModelCard:
    facts = VersionFacts(
        model=paths.MODEL_NAME,
        version=version,
        run_id=run_id,
        bundle_digest=candidate.digest,
        variant=candidate.variant,
    )
    return render_model_card(
        records, candidate.verdict, build_chain(records, facts), limits=_LIMITS
    )


def _tags(candidate: _Candidate, records: Mapping[str, StageRecord]) -> dict[str, str]:
    figures = records["evaluate"].figures
    reasons = {
        f"gate.{reason.gate}": f"{reason.outcome}: {reason.why}"
        for reason in candidate.verdict.reasons
    }
    return reasons | {
        "verdict": "passed" if candidate.verdict.passed else "refused",
        "wer_file": f"{figures['wer_file']:.4f}",
        "wer_stream": f"{figures['wer_stream_lm']:.4f}",
        "feature_fingerprint": str(records["featurize"].figures["fingerprint"]),
        "git_commit": records["train"].environment["git_commit"],
    }


def _build(folder: Path, variant: Any, version: int) -> str:
    """Build a bento; its tag."""
    built = build_bento(
        folder, build_root=paths.BENTO_ROOT, variant=variant, model_version=str(version)
    )
    print(f"  bento {built.tag} ({variant}), {built.size_bytes / 1e6:.1f} MB")
    return built.tag


def _event(
    registry: Registry,
    run_id: str,
    candidate: _Candidate,
    version: int,
    bento: str | None,
    chosen: bool,
    records: Mapping[str, StageRecord],
) -> dict[str, Any]:
    """Append what was packaged, unless the ledger's newest word on this version says the same."""
    artifacts = paths.MLFLOW_ARTIFACTS / run_id / "artifacts"
    body = {
        "model": paths.MODEL_NAME,
        "version": version,
        "variant": candidate.variant,
        "run_id": run_id,
        "bundle": (artifacts / "bundles" / candidate.variant).as_posix(),
        "records": (artifacts / "records").as_posix(),
        "bundle_digest": candidate.digest,
        "bento": bento or "",
        "passed": candidate.verdict.passed,
        "refusals": [f"{reason.gate}: {reason.why}" for reason in candidate.verdict.refusals],
        "chosen": chosen,
        "compared_with": records["gate"].figures["compared_with"],
        "domain": Bundle.load(candidate.folder).config.domain,
    }
    ledger = open_ledger()
    known = [event.body for event in ledger.events("package") if event.body["version"] == version]
    if not known or known[-1] != body:
        ledger.append("package", body, actor="pipeline")
    return body


if __name__ == "__main__":
    main()
