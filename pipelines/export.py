"""Stage ``export``: checkpoint -> ONNX bundles: fp32, proven equal to PyTorch, and fp16, measured."""

import json
from collections.abc import Iterable

from data.text import NORMALISER_VERSION
from features.archive import FeatureArchive
from features.bundle_config import Training
from features.decode import DecoderConfig
from governance.environment import describe
from governance.params import load
from governance.records import read_record
from pipelines import _paths as paths
from pipelines._doubt import limit_on_dev
from pipelines._evaluation import items_of
from pipelines._half import measure_half
from pipelines._params import ExportParams
from pipelines._splits import load_split
from pipelines._stage import SEED, StageRun, run_stage, say
from training.checkpoint import load_model
from training.export import ExportRequest, export_checkpoint, export_half
from training.torch_engine import TorchEngine

_PARITY_RECORDINGS = 12
_SEVERAL_LANGUAGES = "mul"  # ISO 639-2


def main() -> None:
    """Export, check, write bundles."""
    run_stage(
        "export",
        _body,
        inputs={
            "manifest": paths.SPLIT,
            "features": paths.FEATURES,
            "tokens": paths.TOKENS,
            "checkpoint": paths.CHECKPOINT,
            "decoder": paths.REPORTS / "decoder.json",
            "train": paths.report("train"),
        },
        outputs={"fp32": paths.FP32, "fp16": paths.FP16},
    )


def _body(run: StageRun) -> None:
    params = load("export", ExportParams)
    archive = FeatureArchive(paths.FEATURES)
    train = read_record(paths.report("train"))
    decoder = DecoderConfig(**json.loads((paths.REPORTS / "decoder.json").read_text()))
    checkpoint = paths.CHECKPOINT / "model.pt"
    limit = limit_on_dev(TorchEngine(load_model(checkpoint)[0]), archive, decoder)
    request = ExportRequest(
        name=params.name,
        domain=params.domain,
        normaliser=NORMALISER_VERSION,
        spec=archive.spec,
        decoder=decoder,
        trained=Training(
            run_id=train.figures["run_id"],
            git_commit=describe()["git_commit"],
            steps=train.figures["steps"],
        ),
        language_model=paths.TOKENS / "lm.arpa",
        lexicon=paths.TOKENS / "lexicon.txt",
        chunks_ms=params.chunk_ms,
        language=language_of(row.language for row in load_split("train")),
        doubt_limit=limit,
    )
    chunks = ", ".join(map(str, params.chunk_ms))
    say(f"tracing the graphs (whole files; streams of {chunks} ms) and comparing with PyTorch")
    report = export_checkpoint(checkpoint, paths.FP32, request, seed=SEED)
    say("float16 for GPUs")
    half_digest = export_half(paths.FP32, paths.FP16)
    half = measure_half(paths.FP32, paths.FP16, archive)
    say("the model under a chunk mask against the model as a stream")
    difference = masked_against_stream()
    run.parameters = {
        "chunk_ms": list(params.chunk_ms),
        "name": params.name,
        "domain": params.domain,
    }
    run.figures = report.figures() | {
        "half_digest": half_digest,
        "fp16": half,
        "domain": params.domain,
        "language": request.language,
        "doubt_limit": limit,
        "feature_fingerprint": archive.spec.fingerprint(),
        "onnx_max_abs_diff": max(parity.max_error for parity in report.parities),
        "masked_stream_max_abs_diff": difference,
        "bundle_bytes": sum(report.graph_bytes.values()),
    }
    say(
        f"fp16 on the CPU: {half['token_agreement']:.2%} of tokens as fp32, "
        f"{half['net_words_worse']:+d} words wrong on dev and test; not run on a GPU"
    )


def language_of(languages: Iterable[str]) -> str:
    """The tag of what the training recordings speak, one tag each."""
    found = set(languages)
    return found.pop() if len(found) == 1 else _SEVERAL_LANGUAGES


def masked_against_stream() -> float:
    """Largest difference of a log-probability between *masked* and *stream* on dev recordings."""
    import numpy as np

    model, _checkpoint = load_model(paths.CHECKPOINT / "model.pt")
    engine = TorchEngine(model)
    items = items_of(FeatureArchive(paths.FEATURES), load_split("dev")[:_PARITY_RECORDINGS])
    features = [item.features_TF for item in items]
    masked, stream = engine.log_probs(features, "masked"), engine.log_probs(features, "stream")
    return max(float(np.abs(a - b).max()) for a, b in zip(masked, stream, strict=True) if len(a))


if __name__ == "__main__":
    main()
