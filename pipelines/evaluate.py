"""Stage ``evaluate``: WER by mode, decoder and slice with intervals, and the HTML report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from data.manifest import Utterance
from data.shards import read_member
from data.split import voices_note
from features.archive import FeatureArchive
from features.decode import DecoderConfig
from governance.canonical import canonical_json, write_atomic
from governance.params import load
from governance.records import read_record
from pipelines import _paths as paths
from pipelines._evaluation import items_of, load_decoding
from pipelines._params import EvaluateParams
from pipelines._splits import load_split
from pipelines._stage import StageRun, progress_line, run_stage
from training.baselines import deaf_baseline
from training.checkpoint import load_model
from training.evaluate import EvaluationResult, acoustic_pass, evaluate, worst_utterances
from training.report import Chart, ReportData, render_report
from training.reporting.alignment import Clip
from training.reporting.charts import Curve
from training.reporting.tables import BaselineRow
from training.torch_engine import TorchEngine
from training.tuning import Tuning, tune_decoder

_WORDS_OF_A_SLICE = 50


def main() -> None:
    """Tune the decoder on dev, then look at test once."""
    run_stage(
        "evaluate",
        _body,
        inputs={
            "manifest": paths.SPLIT,
            "features": paths.FEATURES,
            "tokens": paths.TOKENS,
            "checkpoint": paths.CHECKPOINT,
            "shards": paths.SHARDS,
            "train": paths.report("train"),
        },
        outputs={"report": paths.EVALUATION_HTML, "decoder": paths.REPORTS / "decoder.json"},
    )


def _body(run: StageRun) -> None:
    params = load("evaluate", EvaluateParams)
    model, checkpoint = load_model(paths.CHECKPOINT / "model.pt")
    archive = FeatureArchive(paths.FEATURES)
    dev, test = (items_of(archive, load_split(split)) for split in ("dev", "test"))
    decoding = load_decoding(paths.TOKENS)
    engine = TorchEngine(model)
    base = DecoderConfig(kind="beam", beam=params.beam, alpha=0.5, lexicon=params.lexicon)
    heard = acoustic_pass(engine, dev, "full", progress=progress_line("dev recordings heard"))
    tuning = tune_decoder(
        dev, heard, base, decoding, progress=progress_line("decoder weights tried on dev")
    )
    decoders = {"greedy": DecoderConfig(kind="greedy"), "lm": tuning.config}
    results = evaluate(
        engine,
        test,
        modes=params.modes,
        decoders=decoders,
        decoding=decoding,
        seed=params.seed,
        progress=progress_line("test recordings heard"),
    )
    assert decoding.language_model is not None
    deaf, _sentence = deaf_baseline(decoding.language_model, dev, test, seed=params.seed)
    write_atomic(paths.REPORTS / "decoder.json", canonical_json(asdict(tuning.config)) + "\n")
    ordered = sorted(results, key=lambda result: (result.decoder != "lm", result.mode != "full"))
    page = _page(
        ordered, deaf, checkpoint.history, [item.utterance for item in test], params.players
    )
    write_atomic(paths.EVALUATION_HTML, page)
    run.parameters = asdict(params)
    run.figures = _figures(results, tuning, deaf)
    for result in ordered:
        wer = result.wer
        print(
            f"  {result.mode:7} {result.decoder:7} WER {wer.point:6.1%} "
            f"({wer.low:.1%} to {wer.high:.1%})"
        )


def _figures(
    results: Sequence[EvaluationResult], tuning: Tuning, deaf: EvaluationResult
) -> dict[str, Any]:
    """Everything by mode and decoder, and the few figures that gates name."""
    named = {f"{result.mode}_{result.decoder}": result for result in results}
    slices = [
        row
        for rows in named["full_lm"].slices.values()
        for row in rows
        if row.words >= _WORDS_OF_A_SLICE
    ]
    file_wer, stream_wer = named["full_lm"].wer.point, named["stream_lm"].wer.point
    return {
        "test": {name: result.figures() for name, result in named.items()},
        "decoder": tuning.figures(),
        "language_model_alone": asdict(deaf.wer),
        "wer_file": file_wer,
        "wer_file_greedy": named["full_greedy"].wer.point,
        "wer_stream_lm": stream_wer,
        "wer_stream_greedy": named["stream_greedy"].wer.point,
        "wer_stream_file_gap": stream_wer - file_wer,
        "worst_slice_wer": max((row.wer.point for row in slices), default=file_wer),
    }


def _page(
    results: Sequence[EvaluationResult],
    deaf: EvaluationResult,
    history: Mapping[str, Any],
    rows: Sequence[Utterance],
    players: int,
) -> str:
    worst = {item.utterance_id for item in worst_utterances(results[0].scored, limit=players)}
    clips = {
        row.utterance_id: Clip(
            content=read_member(paths.SHARDS, row.shard, row.offset, row.length),
            media_type="audio/flac",
        )
        for row in rows
        if row.utterance_id in worst
    }
    train = read_record(paths.report("train"))
    data = ReportData(
        title="auricle",
        subtitle=f"Test split: {voices_note(rows)}. Decoder weights were chosen on dev.",
        results=results,
        charts=_charts(history.get("curves", {})),
        baselines=[
            BaselineRow(
                name="language model alone",
                wer=deaf.wer,
                note="one sentence for every recording; what the grammar gives without listening",
            )
        ],
        facts={
            "MLflow run": str(train.figures["run_id"]),
            "commit": train.environment["git_commit"],
            "machine": f"{train.environment['cpu']}, {train.environment['cores']} cores",
            "training": f"{train.figures['steps']} steps, {train.figures['minutes']} minutes",
            "checkpoint": train.outputs["checkpoint"],
            "features": train.inputs["features"],
        },
        worst=players,
        clips=clips,
    )
    return render_report(data)


def _charts(curves: Mapping[str, Sequence[Sequence[float]]]) -> list[Chart]:
    titles = {
        "loss": ("Training loss", "per label"),
        "dev_wer": ("WER on dev, greedy", "share of words"),
    }
    return [
        Chart(
            title=title,
            y_label=unit,
            curves=[
                Curve(
                    label=name,
                    steps=[point[0] for point in curves[name]],
                    values=[point[1] for point in curves[name]],
                )
            ],
        )
        for name, (title, unit) in titles.items()
        if curves.get(name)
    ]


if __name__ == "__main__":
    main()
