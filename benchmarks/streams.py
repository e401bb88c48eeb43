"""How many people may speak at once: paced live streams, beside sherpa-onnx with the same model.

    python -m benchmarks.streams [--bundle DIR] [--corpora DIR] [--seconds 20] [--short]

Real recordings at the pace of speech, 100 ms a packet, more and more of them until results come
late. The same sender asks our service (as it is, and with greedy decoding) and a minimal WebSocket
server over the sherpa-onnx package, which has the same weights in the same chunks
(`training.exporting.sherpa`). The raw engine is the recogniser alone, and the bare graph, in this
process before. Everything has the same cores.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._load import percentile
from benchmarks._paced import Dialect, Paced, listen_dialect, paced, peer_dialect
from benchmarks._raw import graph_streams, recogniser_streams
from benchmarks._report import ROOT, Page, above, holds, not_run, parser, show, table
from benchmarks._service import answers, service
from benchmarks._speech import speech
from data.scoring import count_words
from features.bundle import Bundle, write_bundle
from features.streaming import settled_frames
from governance.errors import AuricleError
from pipelines import _paths as paths
from pipelines import processes
from training.exporting.sherpa import export_for_sherpa

_MODEL = "auricle"
_STEPS = (4, 8, 16, 24, 32, 40, 48, 64, 80, 96, 128)
_LAG_S, _FINAL_S = 0.3, 0.5  # p95
_SHARE, _TARGET, _STRETCH = 0.5, 12, 20
_AUDIO_S = 400.0
_RATE_HZ = 16_000
_START_S = 30.0


@dataclass(kw_only=True)
class System:
    """A server and what it bore."""

    name: str
    dialect: Dialect
    runs: list[Paced] = field(default_factory=list)

    @property
    def sustained(self) -> int:
        """Streams of the last run before results came late."""
        return max((run.streams for run in self.runs if _keeps_up(run)), default=0)


def main(argv: Sequence[str] = ()) -> int:
    """Measure and write the page."""
    options = parser(__doc__)
    options.add_argument("--bundle", type=Path, help="bundle to serve (this checkout's int8 one)")
    options.add_argument("--corpora", type=Path, help="folder of corpora (../shared/corpora)")
    options.add_argument("--seconds", type=float, default=20.0, help="length of every stream")
    given = options.parse_args(argv)
    seconds = 8.0 if given.short else given.seconds
    folder = given.bundle or ROOT / paths.INT8
    if not (folder / "bundle.json").exists():
        return not_run("streams", "no int8 bundle (auricle run, or --bundle)")
    audio_T, what = speech(given.corpora, _AUDIO_S)
    page = Page(name="streams", title="Live streams side by side", arguments=argv)
    page.notes.append(f"sent: {what}, {seconds:g} s for each stream")
    bundle = Bundle.load(folder)
    raw, graph = recogniser_streams(folder, audio_T, seconds / 2), graph_streams(folder, seconds)
    with tempfile.TemporaryDirectory(prefix="auricle-streams-") as name:
        systems = [
            _borne(opened, audio_T, bundle, seconds)
            for opened in _servers(bundle, Path(name), with_peer=_has_peer(page))
        ]
    _judge(page, systems, raw, graph)
    _agree(page, systems)
    page.sections.append(("Every run", _every_run(systems)))
    return page.write(given.out)


def _has_peer(page: Page) -> bool:
    if importlib.util.find_spec("sherpa_onnx") is not None:
        return True
    page.notes.append("no peer: sherpa-onnx is not installed here (pip install sherpa-onnx)")
    return False


def _servers(
    bundle: Bundle, folder: Path, *, with_peer: bool
) -> Iterator[Callable[[ExitStack], System]]:
    """How to start each server, one after another."""
    greedy = folder / "greedy"
    decoder = replace(bundle.config.decoder, kind="greedy", alpha=0.0, beta=0.0, lexicon=False)
    files = {name: bundle.path(name) for name in bundle.files}
    write_bundle(greedy, replace(bundle.config, decoder=decoder), files)
    ours = {"Auricle, as it is": bundle.folder, "Auricle, greedy": greedy}
    for name, served in ours.items():

        def opened(held: ExitStack, name: str = name, served: Path = served) -> System:
            running = held.enter_context(
                service(
                    folder / "home",
                    bundle=served,
                    log=folder / "log",
                    variables={"AURICLE_MAX_STREAMS": str(_STEPS[-1]), "AURICLE_DEGRADE": "0"},
                )
            )
            return System(name=name, dialect=listen_dialect(running.port, _MODEL))

        yield opened
    if with_peer:

        def peer(held: ExitStack) -> System:
            return System(
                name="sherpa-onnx, greedy", dialect=held.enter_context(_peer(bundle, folder))
            )

        yield peer


@contextmanager
def _peer(bundle: Bundle, folder: Path) -> Iterator[Dialect]:
    """The minimal server as a process of its own."""
    export = export_for_sherpa(bundle, folder / "sherpa")
    port = processes.free_port()
    command = [sys.executable, "-m", "benchmarks._peer_server", str(export.model),
               str(export.tokens), str(export.sample_scale), str(_hop_s(bundle)), str(port)]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        ends = time.monotonic() + _START_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > ends:
                raise AuricleError("it did not start", item="benchmarks._peer_server")
            time.sleep(0.1)
        yield peer_dialect(port)
    finally:
        processes.end_group(process.pid)
        process.wait()


def _borne(
    opened: Callable[[ExitStack], System],
    audio_T: NDArray[np.float32],
    bundle: Bundle,
    seconds: float,
) -> System:
    """More and more streams until results come late twice in a row: once may be the machine."""
    with ExitStack() as held:
        system = opened(held)
        beyond_s = _beyond_s(bundle)
        paced(system.dialect, _audios(audio_T, 2, 4.0), beyond_s=beyond_s)  # warm
        late = 0
        for streams in _STEPS:
            system.runs.append(
                paced(system.dialect, _audios(audio_T, streams, seconds), beyond_s=beyond_s)
            )
            late = 0 if _keeps_up(system.runs[-1]) else late + 1
            if late == 2:
                break
        return system


def _audios(audio_T: NDArray[np.float32], streams: int, seconds: float) -> list[NDArray[np.int16]]:
    """The same for every server: stretches of the audio, each from another place."""
    size = round(seconds * _RATE_HZ)
    pcm_T = np.clip(np.rint(audio_T * 32768), -32768, 32767).astype(np.int16)
    places = [at * len(pcm_T) // streams % (len(pcm_T) - size) for at in range(streams)]
    return [pcm_T[place : place + size] for place in places]


def _hop_s(bundle: Bundle) -> float:
    """Audio that a chunk decides."""
    config = bundle.config
    settled = settled_frames(config.chunks[config.default_chunk_ms].chunk_frames)
    return settled * config.frame_ms / 1000


def _beyond_s(bundle: Bundle) -> float:
    """Audio that a chunk needs behind the last frame that it decides."""
    config, graph = bundle.config, bundle.config.chunks[bundle.config.default_chunk_ms]
    unsettled = graph.chunk_frames - settled_frames(graph.chunk_frames)
    convolutions = 2 * config.feature_spec.hop_ms + config.feature_spec.window_ms
    return (unsettled * config.frame_ms + convolutions) / 1000


def _keeps_up(run: Paced) -> bool:
    late = percentile(run.lags_s, 95) > _LAG_S or percentile(run.finals_s, 95) > _FINAL_S
    return bool(run.lags_s) and not run.failed and not late


def _judge(page: Page, systems: Sequence[System], raw: float, graph: float) -> None:
    cores, served = len(os.sched_getaffinity(0)), systems[0].sustained
    page.bars += [
        above("streams sustained / what the raw engine carries", _SHARE, served / raw, "x"),
        above(f"streams per core (stretch {_STRETCH})", _TARGET, served / cores, ""),
    ]
    page.notes += [
        f"sustained: results at most {1000 * _LAG_S:.0f} ms after the last byte they need, the last "
        f"result at most {1000 * _FINAL_S:.0f} ms after the end (p95 each), nobody refused",
        f"the raw engine: {show(raw, 'streams')} (recogniser alone, a thread for each core), "
        f"{show(graph, 'streams')} (bare graph, one thread)",
        "each step of ours settles half a chunk, so the model runs twice over all audio; the "
        "peer's graph does the same (T and decode_chunk_len), so neither has less to do",
    ]
    rows = [
        (
            system.name,
            system.sustained,
            f"{system.sustained / cores:.1f}",
            f"{system.sustained / raw:.2f}",
        )
        for system in systems
    ]
    header = ("server", "streams sustained", "per core", "of the raw engine")
    page.sections.append(("Sustained", table(header, rows)))
    if systems[-1].name.startswith("sherpa"):
        peer, greedy = systems[-1].sustained, systems[1].sustained
        page.bars.append(
            holds("streams beside sherpa-onnx, greedy both", "reported",
                  f"{greedy} against {peer}", True)
        )  # fmt: skip
        page.bars[-1] = replace(page.bars[-1], met=None)


def _agree(page: Page, systems: Sequence[System]) -> None:
    """How far the words of the greedy servers are the same, on the first run's audio."""
    if len(systems) < 3:
        return
    ours, peers = systems[1].runs[0].texts, systems[2].runs[0].texts
    both = sorted(ours.keys() & peers.keys())
    if not both:
        return
    counts = [count_words(ours[at], peers[at]) for at in both]
    words, errors = sum(one.ref for one in counts), sum(one.errors for one in counts)
    page.notes.append(
        f"words of sherpa-onnx that differ from ours, greedy both: {errors} of {words}; it knows no "
        "running normalisation and ends no utterance"
    )


def _every_run(systems: Sequence[System]) -> str:
    header = ("server, streams", "lag p50 ms", "lag p95 ms", "final p95 ms", "failed",
              "sender's CPU %")  # fmt: skip
    rows = [
        (
            f"{system.name}, {run.streams}",
            f"{1000 * percentile(run.lags_s, 50):.0f}",
            f"{1000 * percentile(run.lags_s, 95):.0f}",
            f"{1000 * percentile(run.finals_s, 95):.0f}",
            run.failed,
            f"{100 * run.own_cpu_share:.0f}",
        )
        for system in systems
        for run in system.runs
    ]
    return table(header, rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
