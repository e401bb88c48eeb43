"""Throughput, overhead and overload of the service, against its own engine, in one run.

    python -m benchmarks.serve [--bundle DIR] [--repeats 5] [--short]

A real service process on loopback; this process sends, and says what of the machine it took itself.
The raw engine is the same bundle's graph in this process, before the service is started, in batches
of the best size and nothing around it. Arrivals of the open loop count from when they were due.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks._load import Generator, Load, percentile
from benchmarks._report import ROOT, Page, above, below, median_interval, parser, show, table
from benchmarks._service import service
from features.bundle import Bundle
from pipelines import _paths as paths
from serving.engine.engine import Engine
from tests.support_bundle import babble, make_bundle
from tests.support_service import wav

_CLIPS_S = (10.0, 0.5)
_CALLERS = 16
_MODEL = "auricle"
_ROWS = (1, 2, 4, 8, 16)
_SEED = 11


@dataclass(kw_only=True)
class Figures:
    """Of one clip length, one entry for each repetition."""

    raw: list[float] = field(default_factory=list)  # seconds of audio per second
    ratio: list[float] = field(default_factory=list)
    overhead_ms: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)  # p99 over median at 70 % of the peak
    goodput: list[float] = field(default_factory=list)  # at twice the peak, over the peak
    refused_ms: list[float] = field(default_factory=list)  # p95
    rows: list[tuple[object, ...]] = field(default_factory=list)


def main(argv: Sequence[str] = ()) -> int:
    """Measure and write the page."""
    options = parser(__doc__)
    options.add_argument(
        "--bundle", type=Path, help="bundle to serve (this checkout's, or a tiny one)"
    )
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--seconds", type=float, default=20.0, help="of each load")
    given = options.parse_args(argv)
    repeats, seconds = (2, 4.0) if given.short else (given.repeats, given.seconds)
    page = Page(name="serve", title="The service against its engine", arguments=argv)
    with tempfile.TemporaryDirectory(prefix="auricle-serve-") as name:
        folder = Path(name)
        bundle = given.bundle or ROOT / paths.FP32
        if not (bundle / "bundle.json").exists():
            bundle = make_bundle(folder / "tiny")
            page.notes.append(
                "bundle served: a tiny random one, whose model costs next to nothing: "
                "ratios to the raw engine are reported, not judged"
            )
        figures = {clip_s: Figures() for clip_s in _CLIPS_S}
        for clip_s, found in figures.items():
            found.raw = [raw_engine(bundle, clip_s, seconds / 2) for _ in range(repeats)]
        with service(folder / "home", bundle=bundle, log=folder / "log") as running:
            for clip_s, found in figures.items():
                clip = wav(babble(clip_s))
                sender = Generator(f"http://127.0.0.1:{running.port}", clip, clip_s, _MODEL)
                sender.closed(_CALLERS, seconds / 2)  # the limit finds its place
                for repeat in range(repeats):
                    _measure(found, sender, seconds, repeat)
    _judge(page, figures, repeats, real=bundle.parent != folder)
    return page.write(given.out)


def raw_engine(bundle: Path, clip_s: float, seconds: float) -> float:
    """Seconds of audio per second of the bare graph, in batches of the best size."""
    engine = Engine(Bundle.load(bundle))
    frames = round(clip_s * 1000 / engine.bundle.config.feature_spec.hop_ms)
    piece = np.zeros((frames, engine.mel_bins), np.float32)
    best = 0.0
    for rows in _ROWS:
        calls, began = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - began) < seconds / len(_ROWS):
            engine.offline([piece] * rows)
            calls += 1
        best = max(best, calls * rows * clip_s / spent_s)
    return best


def _measure(found: Figures, sender: Generator, seconds: float, repeat: int) -> None:
    """One repetition: alone, at saturation, at 70 %, at twice the peak."""
    alone = sender.closed(1, seconds / 2)
    overheads = [one.latency_s - one.inside_s for one in alone.replies if one.status == 200]
    found.overhead_ms.append(1000 * percentile(overheads, 50))
    full = sender.closed(_CALLERS, seconds)
    peak = full.audio_per_s
    found.ratio.append(peak / found.raw[repeat])
    per_s = peak / full.clip_s
    calm = sender.open(0.7 * per_s, seconds, _SEED + repeat)
    median_s = percentile(calm.latencies(200), 50)
    found.tail.append(percentile(calm.latencies(200), 99) / max(median_s, 1e-9))
    flood = sender.open(2.0 * per_s, seconds, _SEED + repeat)
    found.goodput.append(flood.audio_per_s / peak)
    if refused := flood.latencies(429):
        found.refused_ms.append(1000 * percentile(refused, 95))
    loads = {"1 caller": alone, f"{_CALLERS} callers": full, "70 %": calm, "200 %": flood}
    found.rows += [_row(repeat, name, load) for name, load in loads.items()]


def _row(repeat: int, name: str, load: Load) -> tuple[object, ...]:
    ok = load.latencies(200)
    other = len(load.replies) - len(ok) - len(load.latencies(429))
    return (
        f"{load.clip_s:g} s, {name}, run {repeat + 1}",
        f"{load.audio_per_s:.1f}",
        *(f"{1000 * percentile(ok, share):.1f}" for share in (50, 95, 99)),
        len(ok),
        len(load.latencies(429)),
        other,
        f"{100 * load.own_cpu_s / load.wall_s:.0f}",
    )


def _judge(page: Page, figures: dict[float, Figures], repeats: int, *, real: bool) -> None:
    for clip_s, found in figures.items():
        name, wanted = f"{clip_s:g} s clips", 0.8 if clip_s >= 10 else 0.5
        ratio = above(f"{name}: service / raw engine at saturation", wanted,
                      median_interval(found.ratio), "x")  # fmt: skip
        page.bars += [
            ratio if real else replace(ratio, met=None),
            below(f"{name}: overhead of one caller, p50", 5.0,
                  median_interval(found.overhead_ms), "ms"),
            below(f"{name}: p99 / median at 70 % open load", 4.5, median_interval(found.tail), "x"),
            above(f"{name}: goodput / peak at twice the peak", 0.85,
                  median_interval(found.goodput), "x"),
        ]  # fmt: skip
        if found.refused_ms:
            page.bars.append(
                below(f"{name}: p95 of a refusal", 50.0, median_interval(found.refused_ms), "ms")
            )
        raw = show(median_interval(found.raw), "s of audio per s")
        page.notes.append(f"{name}: the raw engine answers {raw}")
    page.notes.append(f"{repeats} repetitions; intervals are of their median")
    header = ("load", "audio s/s", "p50 ms", "p95 ms", "p99 ms", "answered", "refused", "failed",
              "sender's CPU %")  # fmt: skip
    page.sections.append(
        ("Every run", table(header, [row for found in figures.values() for row in found.rows]))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
