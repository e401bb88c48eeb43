"""What a proof of speed sends: real speech cut to length, where corpora lie, else noise like speech.

What decoding costs depends on what is said: noise keeps more letters possible, and cost a beam more than
twice what speech did (18 ms for 10 s, against 4 to 13).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._load import Clip
from benchmarks._workspace import corpora_folder
from data.blocks import open_recording
from pipelines._corpus_eval import open_corpus
from tests.support_bundle import babble
from tests.support_service import wav

Floats = NDArray[np.float32]
_RATE_HZ = 16_000
_CORPUS = "barista"
_LONGEST_S = 900.0


def speech(corpora: Path | None, seconds: float) -> tuple[Floats, str]:
    """So much audio at 16 kHz, and what it is."""
    folder = corpora_folder(corpora)
    if folder is None or not (folder / _CORPUS).is_dir():
        return babble(seconds), "bursts of noise (no corpora of real speech here)"
    samples, parts = 0, []
    for item in open_corpus(folder / _CORPUS, "test").items:
        if samples >= seconds * _RATE_HZ:
            break
        parts.append(_samples(item.path))
        samples += len(parts[-1])
    joined = np.concatenate(parts)
    wanted = round(seconds * _RATE_HZ)
    repeated = np.tile(joined, -(-wanted // len(joined)))[:wanted]
    return repeated, f"real speech, {_CORPUS}'s test split end to end, cut to length"


def clips(audio_T: Floats, lengths_s: Sequence[float]) -> list[Clip]:
    """Consecutive stretches of the audio."""
    ends = np.cumsum([round(length * _RATE_HZ) for length in lengths_s])
    parts = np.split(audio_T[: ends[-1]], ends[:-1])
    return [
        Clip(audio_s=len(part_T) / _RATE_HZ, content=wav(part_T)) for part_T in parts if len(part_T)
    ]


def _samples(path: Path) -> Floats:
    recording = open_recording(path, name=path.name, max_duration_s=_LONGEST_S)
    return np.concatenate([block_TC[:, 0] for block_TC in recording.blocks_16k(mixed=True)])
