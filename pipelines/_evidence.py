"""What a version is shown with: its bytes, records, report and card in MLflow.

Each lies in a folder named by its own digest: a run can have many candidates (another export,
another policy), and none of them writes over what an earlier version points to.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from governance.canonical import write_atomic
from governance.cards import render_model_card
from governance.gates import Verdict
from governance.lineage import VersionFacts, build_chain
from governance.records import StageRecord
from governance.registry import Registry
from pipelines import _paths as paths
from pipelines._stage import path_digest

CARD = paths.REPORTS / "model_card.html"
_LIMITS = (
    "word confidence is entropy-based and not calibrated",
    "the fp16 variant was measured through the CPU provider; it has not been run on a GPU and its "
    "speed there is not measured",
)
Records = Mapping[str, StageRecord]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One variant on its way into the registry."""

    variant: str
    folder: Path
    digest: str
    verdict: Verdict
    version: int = 0  # 0: not registered yet


def keep(registry: Registry, run_id: str, path: Path, prefix: str) -> str:
    """Log a file or a folder below ``prefix`` and its digest; the artefact folder."""
    folder = f"{prefix}{path_digest(path).removeprefix('sha256:')[:12]}"
    registry.log_artifacts(run_id, path, folder)
    return folder


def log_evidence(registry: Registry, run_id: str, records: Records) -> dict[str, str]:
    """What a model owner looks at: figures, report, records, data checks; kind -> folder."""
    test = records["evaluate"].figures["test"]
    metrics = {f"test_wer.{name}": value["wer"]["point"] for name, value in test.items()}
    for name, value in test["full_lm"]["slices"].items():
        metrics |= {f"test_wer_by_{name}/{row['value']}": row["wer"]["point"] for row in value}
    registry.log_metrics(run_id, metrics)
    folders = {"reports": keep(registry, run_id, paths.EVALUATION_HTML, "reports/")}
    if paths.DATA_DOCS.exists():
        folders["data_docs"] = keep(registry, run_id, paths.DATA_DOCS, "data_docs/")
    with tempfile.TemporaryDirectory() as folder:
        for stage in records:
            shutil.copyfile(paths.report(stage), Path(folder) / f"{stage}.json")
        folders["records"] = keep(registry, run_id, Path(folder), "records/")
    return folders


def register(
    registry: Registry,
    run_id: str,
    candidate: Candidate,
    records: Records,
    evidence: Mapping[str, str],
) -> tuple[Candidate, str]:
    """The version of these very bytes in this run, and the folder that holds them."""
    bundle = keep(registry, run_id, candidate.folder, f"bundles/{candidate.variant}-")
    tags = {"bundle_digest": candidate.digest, "variant": candidate.variant}
    known = [
        found.version
        for found in registry.versions(paths.MODEL_NAME)
        if found.run_id == run_id
        and found.tags.get("bundle_digest") == candidate.digest
        and found.source.endswith(f"/{bundle}")
    ]
    version = (
        known[0] if known else registry.register_version(paths.MODEL_NAME, run_id, bundle, tags, "")
    )
    candidate = replace(candidate, version=version)
    card = _log_card(registry, run_id, candidate, records)
    told = _tags(candidate, records) | {kind: folder for kind, folder in evidence.items()}
    registry.set_version_tags(paths.MODEL_NAME, version, told | {"card": card})
    return candidate, bundle


def _log_card(registry: Registry, run_id: str, candidate: Candidate, records: Records) -> str:
    facts = VersionFacts(
        model=paths.MODEL_NAME,
        version=candidate.version,
        run_id=run_id,
        bundle_digest=candidate.digest,
        variant=candidate.variant,
    )
    chain = build_chain(records, facts)
    card = render_model_card(records, candidate.verdict, chain, limits=_LIMITS)
    registry.describe_version(paths.MODEL_NAME, candidate.version, card.markdown)
    write_atomic(CARD, card.html)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model_card.md").write_text(card.markdown, encoding="utf-8")
        (Path(folder) / "model_card.html").write_text(card.html, encoding="utf-8")
        return keep(registry, run_id, Path(folder), f"cards/{candidate.variant}-")


def _tags(candidate: Candidate, records: Records) -> dict[str, str]:
    figures: Mapping[str, Any] = records["evaluate"].figures
    file_wer, stream_wer = figures["wer_file"], figures["wer_stream_lm"]
    if candidate.variant == "fp16":  # evaluated as a whole, so its rates are its own
        half = records["export"].figures["fp16"]
        file_wer, stream_wer = half["test_wer"]["point"], half["test_wer_stream"]["point"]
    reasons = {
        f"gate.{reason.gate}": f"{reason.outcome}: {reason.why}"
        for reason in candidate.verdict.reasons
    }
    return reasons | {
        "verdict": "passed" if candidate.verdict.passed else "refused",
        "wer_file": f"{file_wer:.4f}",
        "wer_stream": f"{stream_wer:.4f}",
        "feature_fingerprint": str(records["featurize"].figures["fingerprint"]),
        "git_commit": records["train"].environment["git_commit"],
        "policy": records["gate"].inputs["policy"],
    }
