"""Throughput, overhead and overload of the service, against its own engine, in one run.

    python -m benchmarks.serve [--bundle DIR] [--corpora DIR] [--repeats 5] [--short]

A real service process on loopback; this process sends, and says what of the machine it took itself.
The raw engine is what the service serves without the service: the same recogniser, from a file's
bytes to its words, in this process before the service is started. The bare graph, without features
and words, is reported beside it. Arrivals of the open loop count from when they were due.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks._load import Clip, Generator, Load, percentile
from benchmarks._raw import graph_audio_per_s, recogniser_audio_per_s
from benchmarks._report import ROOT, Page, above, below, median_interval, parser, show, table
from benchmarks._service import Running, service
from benchmarks._speech import Floats, clips, speech
from pipelines import _paths as paths
from tests.support_bundle import make_bundle

_CLIPS_S = (10.0, 0.5)
_CLIPS = 32  # different ones of each length
_MIXED_S = (0.5, 30.0)  # lengths drawn evenly on a logarithmic scale
_CALLERS = 16
_MODEL = "auricle"
_SEED = 11
_SPEECH_S = 420.0


@dataclass(kw_only=True)
class Figures:
    """Of one clip length, one entry for each repetition."""

    raw: list[float] = field(default_factory=list)  # seconds of audio per second
    graph: list[float] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)
    graph_ratio: list[float] = field(default_factory=list)
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
    options.add_argument("--corpora", type=Path, help="folder of corpora (../shared/corpora)")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--seconds", type=float, default=20.0, help="of each load")
    given = options.parse_args(argv)
    repeats, seconds = (2, 4.0) if given.short else (given.repeats, given.seconds)
    page = Page(name="serve", title="The service against its engine", arguments=argv)
    audio_T, what = speech(given.corpora, _SPEECH_S)
    page.notes.append(f"sent: {what}")
    with tempfile.TemporaryDirectory(prefix="auricle-serve-") as name:
        folder = Path(name)
        bundle = given.bundle or ROOT / paths.FP32
        if not (bundle / "bundle.json").exists():
            bundle = make_bundle(folder / "tiny")
            page.notes.append(
                "bundle served: a tiny random one, whose model costs next to nothing: "
                "ratios to the raw engine are reported, not judged"
            )
        figures, mixed = _measure(bundle, audio_T, folder, repeats, seconds)
    _judge(page, figures, real=bundle.parent != folder)
    _judge_mixed(page, mixed)
    page.notes.append(
        f"{repeats} repetitions; intervals are of their median. Sender, service and raw engine have "
        "the same cores; what the sender takes is taken from the service alone (last columns, of "
        "one core)"
    )
    header = ("load", "audio s/s", "p50 ms", "p95 ms", "p99 ms", "answered", "refused", "failed",
              "sender's CPU %", "service's CPU %")  # fmt: skip
    rows = [row for found in figures.values() for row in found.rows] + mixed.rows
    page.sections.append(("Every run", table(header, rows)))
    return page.write(given.out)


def _measure(
    bundle: Path, audio_T: Floats, folder: Path, repeats: int, seconds: float
) -> tuple[dict[float, Figures], Figures]:
    """The raw engine and the service in turns, so that a busy machine disturbs both."""
    figures, mixed = {clip_s: Figures() for clip_s in _CLIPS_S}, Figures()
    sets = {clip_s: clips(audio_T, [clip_s] * _CLIPS) for clip_s in _CLIPS_S}
    for repeat in range(repeats):
        for clip_s, found in figures.items():
            found.raw.append(recogniser_audio_per_s(bundle, sets[clip_s], seconds / 2))
            found.graph.append(graph_audio_per_s(bundle, clip_s, seconds / 4))
        log = folder / f"log-{repeat}"
        with service(folder / "home", bundle=bundle, log=log) as running:
            for clip_s, found in figures.items():
                _of_length(found, _Load(running, sets[clip_s]), clip_s, seconds, repeat)
            _of_all_lengths(mixed, _Load(running, _mixed(audio_T)), seconds, repeat)
    return figures, mixed


def _mixed(audio_T: Floats) -> list[Clip]:
    rng = np.random.default_rng(_SEED)
    low, high = np.log(_MIXED_S)
    return clips(audio_T, np.exp(rng.uniform(low, high, _CLIPS)).tolist())


class _Load:
    """A sender, with the CPU time of what it sends to."""

    def __init__(self, running: Running, sent: list[Clip]) -> None:
        self._running = running
        self._sender = Generator(running.port, sent, _MODEL)
        self.cpu_s: dict[int, float] = {}

    def closed(self, callers: int, seconds: float) -> Load:
        """As `Generator.closed`."""
        before = self._running.cpu_s()
        load = self._sender.closed(callers, seconds)
        self.cpu_s[id(load)] = self._running.cpu_s() - before
        return load

    def open(self, per_s: float, seconds: float, seed: int) -> Load:
        """As `Generator.open`."""
        before = self._running.cpu_s()
        load = self._sender.open(per_s, seconds, seed)
        self.cpu_s[id(load)] = self._running.cpu_s() - before
        return load

    def row(self, what: str, load: Load) -> tuple[object, ...]:
        """A line of the page."""
        ok = load.latencies(200)
        other = len(load.replies) - len(ok) - len(load.of(429))
        return (
            what,
            f"{load.audio_per_s:.1f}",
            *(f"{1000 * percentile(ok, share):.1f}" for share in (50, 95, 99)),
            len(ok),
            len(load.of(429)),
            other,
            f"{100 * load.own_cpu_s / load.wall_s:.0f}",
            f"{100 * self.cpu_s[id(load)] / load.wall_s:.0f}",
        )


def _of_length(found: Figures, sender: _Load, clip_s: float, seconds: float, repeat: int) -> None:
    """One repetition: alone, at saturation, at 70 %, at twice the peak."""
    sender.closed(_CALLERS, seconds / 2)  # the limit finds its place
    alone = sender.closed(1, seconds / 2)
    overheads = [one.latency_s - one.inside_s for one in alone.of(200)]
    found.overhead_ms.append(1000 * percentile(overheads, 50))
    full = sender.closed(_CALLERS, seconds)
    peak = full.audio_per_s
    found.ratio.append(peak / found.raw[repeat])
    found.graph_ratio.append(peak / found.graph[repeat])
    calm = sender.open(0.7 * full.requests_per_s, seconds, _SEED + repeat)
    median_s = percentile(calm.latencies(200), 50)
    found.tail.append(percentile(calm.latencies(200), 99) / max(median_s, 1e-9))
    flood = sender.open(2.0 * full.requests_per_s, seconds, _SEED + repeat)
    found.goodput.append(flood.audio_per_s / peak)
    if refused := flood.latencies(429):
        found.refused_ms.append(1000 * percentile(refused, 95))
    loads = {"1 caller": alone, f"{_CALLERS} callers": full, "70 %": calm, "200 %": flood}
    for name, load in loads.items():
        found.rows.append(sender.row(f"{clip_s:g} s, {name}, run {repeat + 1}", load))


def _of_all_lengths(found: Figures, sender: _Load, seconds: float, repeat: int) -> None:
    """Latency for each second of audio, so that long and short can be told in one figure."""
    full = sender.closed(_CALLERS, seconds)
    calm = sender.open(0.7 * full.requests_per_s, seconds, _SEED + repeat)
    paces = [one.latency_s / one.audio_s for one in calm.of(200)]
    found.tail.append(percentile(paces, 99) / max(percentile(paces, 50), 1e-9))
    for name, load in {f"{_CALLERS} callers": full, "70 %": calm}.items():
        found.rows.append(sender.row(f"mixed, {name}, run {repeat + 1}", load))


def _judge(page: Page, figures: dict[float, Figures], *, real: bool) -> None:
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
        raw, graph = (
            show(median_interval(values), "s of audio per s") for values in (found.raw, found.graph)
        )
        share = show(median_interval(found.graph_ratio), "x")
        page.notes.append(
            f"{name}: the raw engine makes words of {raw} on all cores; the bare graph takes {graph} "
            f"on one thread, of which the service reaches {share}"
        )


def _judge_mixed(page: Page, mixed: Figures) -> None:
    low, high = _MIXED_S
    what = (
        f"{low:g} to {high:g} s mixed: p99 / median of latency per audio second at 70 % open load"
    )
    page.bars.append(below(what, 8.0, median_interval(mixed.tail), "x"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
