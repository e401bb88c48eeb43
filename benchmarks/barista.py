"""Real human speech: the recipe end to end on unseen speakers, beside four peers.

    python -m benchmarks.barista [--corpora PATH] [--seeds N] [--keep FOLDER] [--without PEER...]

In a clean workspace: ``auricle corpus add``, ``auricle run``, ``auricle promote``; then every system
on the same held-out recordings with the same normaliser and scorer. Where the corpora are not
there, nothing is run and the proof says so. About an hour on two cores.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks._report import (
    ROOT,
    Bar,
    Page,
    above,
    below,
    holds,
    not_run,
    parser,
    show,
    table,
)
from benchmarks._systems import (
    System,
    against,
    bundle_system,
    bundle_systems,
    other_system,
    speakers_table,
    systems_table,
)
from benchmarks._whisper import NoPeer, open_whisper
from benchmarks._workspace import CommandFailed, Workspace, corpora_folder, workspace
from governance.records import Interval
from pipelines import _paths as paths
from pipelines._corpus_eval import OpenCorpus, open_corpus

PEERS = ("whisper", "synthetic", "fsdd")
_FOLDER = ROOT / "benchmarks"
_BARS = {"file_greedy": 0.15, "file_lm": 0.07, "stream_greedy": 0.19, "stream_lm": 0.08}
_MINUTES = 20.0
_CAVEATS = (
    "The vocabulary is closed (55 words, no unknown word in the test split): that flatters any "
    "language model, and the row without acoustics says by how much. The test split has about 750 "
    "words, half of them from one speaker, so the intervals are wide. Its transcripts began as "
    "Whisper's output, which favours the Whisper row."
)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One seed of the recipe: what its records say."""

    seed: int
    train: dict[str, Any]
    evaluate: dict[str, Any]


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--corpora", type=Path, help="folder of corpora (../shared/corpora)")
    options.add_argument("--seeds", type=int, default=1, help="trainings of the recipe (1)")
    options.add_argument("--keep", type=Path, help="keep workspaces here, and use them again")
    options.add_argument("--without", nargs="*", default=[], choices=PEERS)
    given = options.parse_args(argv)
    corpora = corpora_folder(given.corpora)
    if corpora is None or not (corpora / "barista").is_dir():
        return not_run("barista", "no corpora of real speech (../shared/corpora, or --corpora)")
    corpus = open_corpus(corpora / "barista", "test")
    page = Page(name="barista", title="Real human speech", arguments=argv)
    with workspace("barista", _recipe("barista"), keep=given.keep) as space:
        _barista(page, space, corpus, corpora, given.seeds, given.without, given.keep)
    if "fsdd" not in given.without and (corpora / "fsdd").is_dir():
        with workspace("fsdd", _recipe("fsdd"), keep=given.keep) as space:
            _fsdd(page, space, corpora)
    page.notes.append(f"peers left out: {', '.join(given.without) or 'none'}")
    return page.write(given.out)


def _recipe(name: str) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load((_FOLDER / f"{name}-params.yaml").read_text()))


def _barista(
    page: Page,
    space: Workspace,
    corpus: OpenCorpus,
    corpora: Path,
    seeds: int,
    without: Sequence[str],
    keep: Path | None,
) -> None:
    _bring(space, corpora, "barista")
    trained = [_train(space, seed) for seed in range(seeds, 1, -1)]
    space.set_params({"train": {"seed": 1}})
    space.auricle("run")
    trained.insert(0, _trained(space, 1))
    decision = _promote(space)
    ours = {
        variant: bundle_systems(f"auricle {variant}", space.path(paths.MODELS / variant), corpus)
        for variant in ("fp32", "int8")
    }
    peers = _peers(page, corpus, without, keep)
    page.bars += _bars(space, ours["fp32"], trained[0])
    page.notes += _notes(space, trained[0], decision)
    every = [*ours["fp32"].values(), *ours["int8"].values(), *peers]
    page.sections += [
        ("Every system on the same recordings", systems_table(every) + f"\n\n{_CAVEATS}"),
        ("Ours beside the peers, paired", _paired(ours["fp32"]["file_lm"], peers)),
        ("As the pipeline's own report has it", _stage_table(trained[0])),
        ("int8 beside fp32", _int8_table(space)),
        ("Speakers (file, language model)", speakers_table(ours["fp32"]["file_lm"])),
        ("Seeds", _seeds_table(trained)),
    ]


def _bring(space: Workspace, corpora: Path, name: str) -> None:
    if not (space.path(paths.SHARDS) / name / "manifest.parquet").exists():
        space.auricle("corpus", "add", str(corpora / name), "--name", name)


def _train(space: Workspace, seed: int) -> Trained:
    space.set_params({"train": {"seed": seed}})
    space.auricle("run", "evaluate")
    return _trained(space, seed)


def _trained(space: Workspace, seed: int) -> Trained:
    return Trained(
        seed=seed,
        train=space.record("train").figures,
        evaluate=space.record("evaluate").figures,
    )


def _promote(space: Workspace) -> str:
    try:
        return space.auricle("promote", "--actor", "benchmark").strip()
    except CommandFailed:
        return "no variant passed the gates: nothing was promoted"


def _bars(space: Workspace, ours: dict[str, System], trained: Trained) -> list[Bar]:
    quantize, speed = space.record("quantize").figures, space.record("benchmark").figures["int8"]
    bars = [
        below(f"WER, {name.replace('_', ', ')}", bound, ours[name].wer, "%")
        for name, bound in _BARS.items()
    ]
    bars.append(below("training, minutes", _MINUTES, trained.train["minutes"], "min"))
    export = space.record("export").figures
    bars += [
        below(name, bound, export[key], "")
        for name, bound, key in (
            ("masked against stream: log-probability", 1e-4, "masked_stream_max_abs_diff"),
            ("ONNX against PyTorch: log-probability", 1e-3, "onnx_max_abs_diff"),
        )
    ]
    bars.append(below("int8: net words worse, dev + test", 2, quantize["net_words_worse"], "words"))
    gains = {name: Interval.from_json(speed[f"{name}_speedup"]) for name in ("file", "stream")}
    bars += [above(f"int8: speed-up, {name}", 1.3, gain, "x") for name, gain in gains.items()]
    bars.append(above("int8: times smaller", 3.3, quantize["size_ratio"], "x"))
    if min(gain.point for gain in gains.values()) < 1.3:
        verdict = space.record("gate").figures["verdicts"]["int8"]
        named = any(
            r["gate"] == "int8_speed" and r["outcome"] == "failed" for r in verdict["reasons"]
        )
        refused = not verdict["passed"] and named
        bars.append(
            holds(
                "int8 too slow here", "the gate refuses it by name", str(refused).lower(), refused
            )
        )
    return bars


def _notes(space: Workspace, trained: Trained, decision: str) -> list[str]:
    train, split = trained.train, space.record("split").figures
    environment = train["environment"]
    threads = environment.get("threads", "?")
    return [
        "data: barista, its own split, speakers disjoint, recordings untrimmed; "
        f"speaker leakage {split.get('speaker_leakage', 'not measured')}",
        f"training: {train['parameters']:,} parameters, {train['steps']} steps, "
        f"{train['minutes']:.1f} minutes on {threads} threads, {environment.get('precision', '')}; "
        f"weights chosen on dev: {train['chosen']}",
        f"decision: {decision}",
        "figures of the first table: each recording through the recogniser of the service (stream: "
        "640 ms chunks, its endpointing included); intervals: 95 %, speaker-clustered bootstrap",
    ]


def _peers(
    page: Page, corpus: OpenCorpus, without: Sequence[str], keep: Path | None
) -> list[System]:
    peers = []
    if "synthetic" not in without:
        with workspace("synthetic", {}, keep=keep) as space:
            space.auricle("run", "export")
            name = "trained on the built-in synthetic corpus only"
            folder = space.path(paths.FP32)
            peers = [bundle_system(name, folder, corpus, "file", d) for d in ("greedy", "lm")]
    if "whisper" not in without:
        try:
            transcribe, folder = open_whisper()
        except NoPeer as error:
            page.notes.append(f"whisper-tiny: not run: {error}")
        else:
            size_mb = (folder / "model.bin").stat().st_size / 1e6
            name = f"whisper-tiny (faster-whisper, int8, greedy, {size_mb:.0f} MB)"
            peers.append(other_system(name, corpus, transcribe))
    return peers


def _paired(ours: System, peers: Sequence[System]) -> str:
    rows = [(peer.name, against(ours, peer)) for peer in peers]
    return table(("other", f"WER of '{ours.name}' minus its WER"), rows)


def _stage_table(trained: Trained) -> str:
    rows = []
    for name, row in trained.evaluate["test"].items():
        wer = Interval.from_json(row["wer"])
        rows.append((name.replace("_", ", "), show(wer, "%"), row["words"]["ref"]))
    deaf = Interval.from_json(trained.evaluate["language_model_alone"])
    rows.append(("language model, no acoustics", show(deaf, "%"), rows[0][2]))
    return table(("mode, decoder (PyTorch, whole utterances)", "WER", "words"), rows)


def _int8_table(space: Workspace) -> str:
    speed, quantize = space.record("benchmark").figures, space.record("quantize").figures
    rows = [
        (
            name,
            f"{speed[name]['bytes'] / 1e6:.2f} MB",
            show(Interval.from_json(speed[name]["file_rtf"]), ""),
            show(Interval.from_json(speed[name]["stream_rtf"]), ""),
            f"{speed[name]['chunk_p50_ms']:.1f} / {speed[name]['chunk_p99_ms']:.1f} ms",
            f"{speed[name]['load']['memory_mb']:.0f} MB",
        )
        for name in ("fp32", "int8")
    ]
    header = (
        "variant", "graphs", "model, CPU-s per audio-s, file", "stream", "chunk p50 / p99", "memory",
    )  # fmt: skip
    gap = show(Interval.from_json(quantize["wer_difference"]), "%")
    reasons = [
        f"- {name}: {'passed' if verdict['passed'] else 'refused'}"
        + "".join(
            f"; {reason['gate']}: {reason['why']}"
            for reason in verdict["reasons"]
            if reason["outcome"] == "failed"
        )
        for name, verdict in space.record("gate").figures["verdicts"].items()
    ]
    words = f"WER of int8 minus fp32, dev and test, paired: {gap}. The gates:\n\n"
    return "\n\n".join([table(header, rows), words + "\n".join(reasons)])


def _seeds_table(trained: Sequence[Trained]) -> str:
    names = ("full_greedy", "full_lm", "stream_greedy", "stream_lm")
    rows: list[tuple[object, ...]] = []
    for one in trained:
        points = [one.evaluate["test"][name]["wer"]["point"] for name in names]
        rows.append((one.seed, f"{one.train['minutes']:.1f}", *(f"{p:.2%}" for p in points)))
    return table(("seed", "minutes", *(name.replace("_", ", ") for name in names)), rows)


def _fsdd(page: Page, space: Workspace, corpora: Path) -> None:
    _bring(space, corpora, "fsdd")
    space.auricle("run", "export")
    corpus = open_corpus(corpora / "fsdd", "test")
    measure = partial(bundle_system, "auricle fp32", space.path(paths.FP32), corpus, "file")
    systems = [measure("greedy"), measure("lm")]
    train = space.record("train").figures
    said = (
        f"Single digits at 8 kHz, three training speakers, one unseen speaker; {train['steps']} "
        f"steps, {train['minutes']:.1f} minutes of training. One cluster has no speaker-clustered "
        f"interval worth the name: these say how one person fared. Refused: {systems[0].refused}."
    )
    page.sections.append(("fsdd: an unseen speaker", systems_table(systems) + f"\n\n{said}"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
