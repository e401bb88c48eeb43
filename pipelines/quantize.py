"""Stage ``quantize``: static int8, and what it costs in words on dev and test."""

from dataclasses import asdict

from features.archive import FeatureArchive
from features.bundle import Bundle
from governance.params import load
from pipelines import _paths as paths
from pipelines._evaluation import items_of, load_decoding
from pipelines._splits import load_split
from pipelines._stage import SEED, StageRun, progress_line, run_stage
from training.evaluate import acoustic_pass, compare, decode_all, score_items, summarise
from training.onnx_engine import OnnxEngine
from training.quantize import quantize_bundle
from training.quantize_config import QuantizeConfig


def main() -> None:
    """Calibrate on dev, compare with fp32."""
    run_stage(
        "quantize",
        _body,
        inputs={"manifest": paths.SPLIT, "features": paths.FEATURES, "fp32": paths.FP32},
        outputs={"int8": paths.INT8},
    )


def _body(run: StageRun) -> None:
    config = load("quantize", QuantizeConfig)
    archive = FeatureArchive(paths.FEATURES)
    items = {split: items_of(archive, load_split(split)) for split in ("dev", "test")}
    report = quantize_bundle(
        paths.FP32,
        paths.INT8,
        [item.features_TF for item in items["dev"]],
        config,
        progress=progress_line("layers tried"),
    )
    decoding = load_decoding(paths.FP32)
    everything = [*items["dev"], *items["test"]]
    scored = {}
    for variant, folder in (("fp32", paths.FP32), ("int8", paths.INT8)):
        bundle = Bundle.load(folder)
        log_probs = acoustic_pass(
            OnnxEngine(bundle),
            everything,
            "full",
            progress=progress_line(f"recordings heard by {variant}"),
        )
        texts = decode_all(log_probs, bundle.config.decoder, decoding)
        scored[variant] = score_items(everything, texts)
    loss = compare(scored["fp32"], scored["int8"], seed=SEED)
    test = scored["int8"][len(items["dev"]) :]
    summary = summarise(test, engine="onnx int8", mode="full", decoder="lm", seed=SEED)
    run.parameters = asdict(config)
    run.figures = report.figures() | {
        "bundle_bytes": report.bytes_int8,
        "net_words_worse": loss.net_words_worse,
        "net_deletions_worse": loss.deletions_worse,
        "wer_difference": asdict(loss.wer_difference),
        "test_wer": asdict(summary.wer),
    }
    print(
        f"  {report.size_ratio:.2f}x smaller, {loss.net_words_worse:+d} words wrong and "
        f"{loss.deletions_worse:+d} deleted on dev and test"
    )


if __name__ == "__main__":
    main()
