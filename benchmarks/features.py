"""Front-end speed: ours beside torchaudio's and kaldi-native-fbank's, in one run on one thread.

    python -m benchmarks.features [--repeats 21] [--out benchmarks/results]

A figure is seconds of audio per CPU-second (`time.process_time`, so waiting for a busy machine does
not count, though sharing a core's caches with neighbours does). The three take turns, so that
all meet the same neighbours. The exit status is 1 if ours misses the bar.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import Page, above, median_interval, parser, table
from features.fbank import StreamingFbank, log_mel
from features.spec import FeatureSpec

AUDIO_S = 60
BAR = 2_000
OURS = "auricle, whole file"
STREAM_CHUNKS_MS = (640, 100, 20)
SPEC = FeatureSpec()
Task = Callable[[], object]


def make_audio(seconds: int, seed: int) -> NDArray[np.float32]:
    """Noise with the slow level changes of speech; the speed does not depend on the content."""
    count = seconds * SPEC.sample_rate_hz
    level_T = np.exp(2 * np.sin(np.arange(count) / SPEC.sample_rate_hz * 5))
    noise_T = np.random.default_rng(seed).standard_normal(count)
    return (0.01 * level_T * noise_T).astype(np.float32)


def stream(samples_T: NDArray[np.float32], chunk_ms: int) -> int:
    """Frames of a whole stream, fed in chunks."""
    fbank, size, frames = StreamingFbank(SPEC), chunk_ms * SPEC.sample_rate_hz // 1000, 0
    for start in range(0, len(samples_T), size):
        frames += len(fbank.accept(samples_T[start : start + size]))
    return frames + len(fbank.finish())


def torchaudio_task(samples_T: NDArray[np.float32]) -> Task:
    import torch
    from torchaudio.compliance import kaldi

    torch.set_num_threads(1)
    scaled_1T = torch.from_numpy(samples_T * np.float32(SPEC.sample_scale))[None]
    return lambda: kaldi.fbank(
        scaled_1T,
        num_mel_bins=SPEC.mel_bins,
        low_freq=SPEC.low_hz,
        high_freq=SPEC.high_hz,
        dither=0.0,
        window_type="povey",
        snip_edges=True,
        use_energy=False,
    )


def kaldi_native_task(samples_T: NDArray[np.float32]) -> Task:
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = SPEC.mel_bins
    options.mel_opts.low_freq = SPEC.low_hz
    options.mel_opts.high_freq = SPEC.high_hz
    scaled = (samples_T * np.float32(SPEC.sample_scale)).tolist()

    def run() -> int:
        fbank = knf.OnlineFbank(options)
        fbank.accept_waveform(SPEC.sample_rate_hz, scaled)
        fbank.input_finished()
        return int(fbank.num_frames_ready)  # fetching them one by one is not counted

    return run


def measure(tasks: dict[str, Task], repeats: int) -> dict[str, list[float]]:
    """Real-time factors per CPU-second; the tasks take turns after one warm-up each."""
    for task in tasks.values():
        task()
    speeds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            speeds[name].append(AUDIO_S / (time.process_time() - start))
    return speeds


def page_of(speeds: dict[str, list[float]], argv: Sequence[str]) -> Page:
    """The page: ours beside the peers'."""
    rows = [
        (
            name,
            *(f"{value:,.0f}" for value in (found.point, found.low, found.high)),
            f"{max(values):,.0f}",
        )
        for name, values in speeds.items()
        for found in (median_interval(values),)
    ]
    header = ("front end", "x real time per CPU-second: median", "from", "to", "best")
    return Page(
        name="features",
        title="Front-end speed",
        arguments=argv,
        notes=[
            f"{AUDIO_S} s of audio, one thread, {SPEC.mel_bins} mel bins, equal settings; front end "
            f"{SPEC.fingerprint()}; NumPy {np.__version__}"
        ],
        bars=[above("whole file, per CPU-second", BAR, median_interval(speeds[OURS]), "x")],
        sections=[("Ours beside the peers", table(header, rows))],
    )


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=21)
    given = options.parse_args(argv)
    samples_T = make_audio(AUDIO_S, seed=0)
    tasks: dict[str, Task] = {OURS: lambda: log_mel(samples_T, SPEC)}
    for chunk_ms in STREAM_CHUNKS_MS:
        name = f"auricle, stream in {chunk_ms} ms chunks"
        tasks[name] = partial(stream, samples_T, chunk_ms)
    tasks["torchaudio compliance.kaldi.fbank"] = torchaudio_task(samples_T)
    tasks["kaldi-native-fbank"] = kaldi_native_task(samples_T)
    return page_of(measure(tasks, given.repeats), argv).write(given.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
