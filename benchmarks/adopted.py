"""Auricle with an adopted Whisper beside a plain FastAPI + faster-whisper server.

    python -m benchmarks.adopted [--corpora PATH] [--repeats 3] [--requests 24] [--short]

The same weights (whisper-tiny.en, int8), the same options (greedy, English, no earlier text), the
same recordings in the same order. Both servers are processes of their own and stay up; in each
repetition they are asked one after the other, so that what else the machine does hits both. The peer
runs with one worker of two threads and with two workers of one; the better of the two, at each
concurrency and in each repetition, is what Auricle is judged by.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import httpx

from benchmarks._load import percentile
from benchmarks._report import Bar, Page, above, median_interval, not_run, parser, show, table
from benchmarks._service import service
from benchmarks._whisper import NoPeer, weights
from benchmarks._workspace import corpora_folder
from data import synth
from data.scoring import Counts, count_words
from data.text import normalise
from pipelines import processes
from pipelines._corpus_eval import open_corpus
from pipelines.run import child_environment
from tests.support_bundle import make_bundle

_CONCURRENCY = (1, 4, 16)
_MODEL = "whisper-tiny"
_PEERS = {"FastAPI, 1 worker x 2 threads": (2, 1), "FastAPI, 2 workers x 1 thread": (1, 2)}
_OURS = "Auricle"
_PATH = "/v1/audio/transcriptions"
_TIMEOUT_S = 300.0
_READY_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording and what was said."""

    audio: bytes
    text: str
    seconds: float


@dataclass(kw_only=True)
class Run:
    """One server at one concurrency, once."""

    audio_s: float
    wall_s: float
    own_cpu_s: float
    latencies_s: list[float]
    failed: int
    texts: list[str]

    @property
    def audio_per_s(self) -> float:
        """Seconds of audio answered in a second."""
        return self.audio_s / self.wall_s

    @property
    def p95_s(self) -> float:
        """Latency that 19 of 20 requests stay below."""
        return percentile(self.latencies_s, 95)


@dataclass(kw_only=True)
class Figures:
    """Every run, by server and concurrency."""

    runs: dict[tuple[str, int], list[Run]] = field(default_factory=dict)

    def add(self, name: str, callers: int, run: Run) -> None:
        """Keep a run; runs of one repetition stand at the same place."""
        self.runs.setdefault((name, callers), []).append(run)

    def ratios(self, callers: int) -> tuple[list[float], list[float]]:
        """Throughput over the best peer's, and the best peer's p95 over ours, by repetition."""
        ours = self.runs[_OURS, callers]
        peers = [self.runs[name, callers] for name in _PEERS]
        faster = [
            run.audio_per_s / max(peer[at].audio_per_s for peer in peers)
            for at, run in enumerate(ours)
        ]
        sooner = [min(peer[at].p95_s for peer in peers) / run.p95_s for at, run in enumerate(ours)]
        return faster, sooner


def main(argv: Sequence[str] = ()) -> int:
    """Measure and write the page."""
    options = parser(__doc__)
    options.add_argument("--corpora", type=Path, help="folder of corpora (../shared/corpora)")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--requests", type=int, default=32, help="of each run")
    given = options.parse_args(argv)
    repeats, requests = (2, 8) if given.short else (given.repeats, given.requests)
    try:
        folder = weights()
    except NoPeer as reason:
        return not_run("adopted", str(reason))
    page = Page(
        name="adopted", title="An adopted Whisper beside FastAPI + faster-whisper", arguments=argv
    )
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="auricle-adopted-") as name, ExitStack() as servers:
        space = Path(name)
        clips, source = recordings(
            corpora_folder(given.corpora), space, _share(requests, _CONCURRENCY[-1])
        )
        urls = {
            peer: servers.enter_context(_peer(folder, threads, workers, space / f"{threads}.log"))
            for peer, (threads, workers) in _PEERS.items()
        }
        urls[_OURS] = servers.enter_context(_ours(folder, space))
        for url in urls.values():
            ask(url, clips[:2], 2)
        for repeat in range(repeats):
            for callers in _CONCURRENCY:
                order = list(urls) if repeat % 2 else list(reversed(urls))
                for server in order:
                    some = clips[: _share(requests, callers)]
                    figures.add(server, callers, ask(urls[server], some, callers))
    _judge(page, figures, clips, source, repeats)
    return page.write(given.out)


def _share(requests: int, callers: int) -> int:
    """Recordings of a run: every caller has one, and some have two."""
    return max(requests, callers + callers // 4)


def recordings(corpora: Path | None, space: Path, count: int) -> tuple[list[Clip], str]:
    """Real recordings where there are any; otherwise the built-in corpus."""
    if corpora is not None and (corpora / "barista").is_dir():
        folder, source = corpora / "barista", "barista's test split (people, home microphones)"
    else:
        folder, source = space / "synth", "the built-in corpus (synthetic voices)"
        small = synth.SynthConfig(train_utterances=2, dev_utterances=2, test_utterances=count)
        synth.synthesise(folder, small)
    corpus = open_corpus(folder, "test")
    problems = list(corpus.problems)
    clips = [
        Clip(
            audio=recording.stored,
            text=recording.utterance.text,
            seconds=recording.utterance.duration_s,
        )
        for recording in islice(corpus.recordings(problems), count)
    ]
    return clips, source


@contextmanager
def _peer(folder: Path, threads: int, workers: int, log: Path) -> Iterator[str]:
    port = processes.free_port()
    command = [
        sys.executable, "-m", "benchmarks._whisper_server", "--folder", str(folder), "--port",
        str(port), "--threads", str(threads), "--workers", str(workers),
    ]  # fmt: skip
    environment = child_environment()
    environment.pop("OMP_NUM_THREADS", None)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=environment, stdout=sink, stderr=sink, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        processes.wait_ready(
            f"{url}/readyz", timeout_s=_READY_S, alive=lambda: process.poll() is None, log=log
        )
        yield url
    finally:
        processes.end_group(process.pid)
        process.wait()


@contextmanager
def _ours(folder: Path, space: Path) -> Iterator[str]:
    """The service as it is shipped, but for the wait that it would allow: the peer refuses nobody."""
    os.environ |= {
        "AURICLE_ADOPTED": f"{_MODEL}={folder}",
        "AURICLE_MAX_WAIT_S": str(_TIMEOUT_S),
        "AURICLE_DEGRADE": "0",
    }
    bundle = make_bundle(space / "tiny")
    with service(space / "home", bundle=bundle, log=space / "ours.log") as running:
        yield f"http://127.0.0.1:{running.port}"


def ask(url: str, clips: Sequence[Clip], callers: int) -> Run:
    """Send every clip once; so many callers take them in order."""

    async def whole() -> Run:
        texts, latencies, left = [""] * len(clips), [0.0] * len(clips), iter(range(len(clips)))
        failed = 0

        async def caller(client: httpx.AsyncClient) -> None:
            nonlocal failed
            for at in left:
                began = time.perf_counter()
                answer = await client.post(
                    url + _PATH,
                    data={"model": _MODEL, "language": "en"},
                    files={"file": ("clip.flac", clips[at].audio, "audio/flac")},
                )
                latencies[at] = time.perf_counter() - began
                if answer.status_code == 200:
                    texts[at] = answer.json()["text"]
                else:
                    failed += 1

        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            began, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(caller(client) for _ in range(callers)))
            return Run(
                audio_s=sum(clip.seconds for clip in clips),
                wall_s=time.perf_counter() - began,
                own_cpu_s=time.process_time() - cpu,
                latencies_s=latencies,
                failed=failed,
                texts=texts,
            )

    return asyncio.run(whole())


def word_errors(clips: Sequence[Clip], texts: Sequence[str]) -> Counts:
    """Of all recordings together."""
    found = Counts(sub=0, ins=0, del_=0, ref=0)
    for clip, text in zip(clips, texts, strict=True):
        found += count_words(normalise(clip.text), normalise(text))
    return found


def _judge(page: Page, figures: Figures, clips: Sequence[Clip], source: str, repeats: int) -> None:
    for callers in _CONCURRENCY:
        faster, sooner = (median_interval(values) for values in figures.ratios(callers))
        who = f"{callers} caller{'s' if callers > 1 else ''}"
        bars = [
            above(f"{who}: throughput over the better peer's", 1.0, faster, "x"),
            above(f"{who}: the better peer's p95 over ours", 1.0, sooner, "x"),
        ]
        page.bars += bars if callers > 1 else [_reported(bar) for bar in bars]
    ours = figures.runs[_OURS, _CONCURRENCY[-1]][0].texts  # read in company
    theirs = figures.runs[next(iter(_PEERS)), _CONCURRENCY[-1]][0].texts
    clips = clips[: len(ours)]
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    page.notes += [
        f"recordings: {len(clips)} of {source}, {sum(c.seconds for c in clips):.0f} s",
        f"texts that are the same, character for character: {same} of {len(clips)}",
        *(
            f"WER of {name}: {show(word_errors(clips, texts).rate, '%')}"
            for name, texts in (("Auricle", ours), ("the peer", theirs))
        ),
        f"{repeats} repetitions, servers asked in turn; ratios are of runs that stand side by "
        "side, intervals of their median",
    ]
    header = ("server, callers", "audio s/s", "p50 s", "p95 s", "failed", "sender's CPU %")
    rows = [
        (
            f"{name}, {callers}, run {at + 1}",
            f"{run.audio_per_s:.2f}",
            f"{percentile(run.latencies_s, 50):.2f}",
            f"{run.p95_s:.2f}",
            run.failed,
            f"{100 * run.own_cpu_s / run.wall_s:.0f}",
        )
        for (name, callers), runs in figures.runs.items()
        for at, run in enumerate(runs)
    ]
    different = [
        (at, one, other)
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True))
        if one != other
    ]
    page.sections.append(("Every run", table(header, rows)))
    if different:
        page.sections.append(("Texts that differ", table(("clip", "Auricle", "peer"), different)))


def _reported(bar: Bar) -> Bar:
    return replace(bar, wanted="", met=None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
