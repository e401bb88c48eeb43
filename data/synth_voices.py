"""Voices from espeak-ng, spoken in another process.

The engine is GPL-3.0 software and is run as a separate program only: ``python -m
data.synth_voices`` reads one JSON request per line on standard input and writes one wave file each.
This module imports little but the standard library, so that a worker starts at once; what loads
the engine is called by ``main`` alone. What the engine says is not covered by its licence.
"""

import ctypes
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from governance.errors import AuricleError

_PROGRAM = "espeak-ng"
_MEND = "pip install 'auricle[synth]', or install the espeak-ng program"
_PATH_LIMIT = 120  # older engines keep their data path in a buffer of 160 characters
_OUTPUT_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_CHARACTERS, _UTF8 = 1, 1

# No variant that breathes (f2, f3, f5 and others): the engine draws breath from the clock's seed.
_ACCENTS = (
    "en-us", "en", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-us-nyc", "en-gb-x-gbcwmd",
    "en-gb-x-gbclan",
)  # fmt: skip
_VARIANTS: dict[str, tuple[str, ...]] = {
    "train": (
        "m1", "f1", "m2", "linda", "m3", "Annie", "m4", "belinda", "m5", "anika", "m7", "aunty",
        "Alex", "Andrea", "Andy", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee",
        "Mario", "Michael", "Mike", "Nguyen", "Reed", "RicishayMax", "adam", "announcer",
        "antonio", "benjamin", "boris", "david", "grandpa", "ian", "john", "klatt2", "klatt4",
        "marcelo", "max", "michel", "norbert", "pablo", "pedro", "quincy", "robert", "steph",
    ),
    "dev": ("m6", "grandma", "caleb", "travis", "gustave", "edward"),
    "test": ("f4", "m8", "shelby", "paul", "mike2", "rob"),
}  # fmt: skip


class VoiceError(AuricleError):
    """No speech engine, or one that did not say what it was asked."""


@dataclass(frozen=True, kw_only=True)
class Utter:
    """One request to the engine."""

    text: str
    voice: str  # e.g. "en-us+m3"
    words_per_minute: int
    pitch: int  # 0 to 99, 50 is the voice's own
    pitch_range: int  # 0 (monotone) to 99
    path: str  # the wave file to write, absolute


def speakers(split: str) -> list[str]:
    """The voices of a split, in a fixed order: a variant is heard in one split only.

    In training every variant speaks with two accents.
    """
    variants = _VARIANTS[split]
    turns = 2 if split == "train" else 1
    return [
        f"{_ACCENTS[(place + 3 * turn) % len(_ACCENTS)]}+{variant}"
        for turn in range(turns)
        for place, variant in enumerate(variants)
    ]


def engine() -> str:
    """Where speech would come from, ``library`` or ``program``, found without loading either."""
    if importlib.util.find_spec("espeakng_loader") is not None:
        return "library"
    if shutil.which(_PROGRAM):
        return "program"
    raise VoiceError("no speech engine to make the built-in corpus with", mend=_MEND)


def speak(requests: Sequence[Utter]) -> str:
    """Have a fresh worker process say every request in order; returns the engine's name.

    A fresh process per call keeps the bytes independent of what was said before.
    """
    lines = "".join(json.dumps(asdict(request)) + "\n" for request in requests)
    done = subprocess.run(
        [sys.executable, "-m", "data.synth_voices", engine()],
        input=lines,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        check=False,
    )
    answers = done.stdout.splitlines()
    if done.returncode or len(answers) != len(requests) + 1:
        said = (done.stderr.strip().splitlines() or ["it stopped early"])[-1]
        raise VoiceError(f"the speech engine failed: {said}", item=requests[0].voice, mend=_MEND)
    return answers[0]


class _Library:
    """The engine's shared library, driven through ctypes (in the worker process only)."""

    def __init__(self) -> None:
        import espeakng_loader  # the worker only: this is the GPL engine

        self._engine = ctypes.CDLL(espeakng_loader.get_library_path())
        self._heard = bytearray()
        signature = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = signature(self._hear)  # kept alive for the engine
        data_path = _short_path(espeakng_loader.get_data_path())
        self._rate_hz = self._engine.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, 0, data_path.encode(), _DO_NOT_EXIT
        )
        if self._rate_hz <= 0:
            raise VoiceError("the espeak-ng library did not start", item=data_path, mend=_MEND)
        self._engine.espeak_SetSynthCallback(self._callback)
        self._engine.espeak_Info.restype = ctypes.c_char_p
        self.name = "espeak-ng " + self._engine.espeak_Info(None).decode().split()[0]

    def _hear(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:
            self._heard += ctypes.string_at(samples, 2 * count)
        return 0

    def say(self, request: Utter) -> None:
        """Write the wave file of one request."""
        self._engine.espeak_ng_SetRandSeed(1)
        if self._engine.espeak_SetVoiceByName(request.voice.encode()):
            raise VoiceError("unknown voice", item=request.voice)
        for parameter, value in (
            (_RATE, request.words_per_minute),
            (_PITCH, request.pitch),
            (_RANGE, request.pitch_range),
        ):
            self._engine.espeak_SetParameter(parameter, value, 0)
        self._heard.clear()
        text = request.text.encode()
        failed = self._engine.espeak_Synth(
            text, len(text) + 1, 0, _CHARACTERS, 0, _UTF8, None, None
        )
        if failed or not self._heard:
            raise VoiceError("the engine said nothing", item=request.voice)
        with wave.open(request.path, "wb") as stream:
            stream.setnchannels(1)
            stream.setsampwidth(2)
            stream.setframerate(self._rate_hz)
            stream.writeframes(bytes(self._heard))


class _Program:
    """The installed ``espeak-ng`` program, one call per utterance."""

    def __init__(self) -> None:
        answer = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, check=True)
        words = answer.stdout.replace(":", " ").split()
        number = next((word for word in words if word[0].isdigit()), "unknown")
        self.name = f"espeak-ng {number}"

    def say(self, request: Utter) -> None:
        """Write the wave file of one request (this form of the engine has no pitch range)."""
        subprocess.run(
            [
                _PROGRAM, "-v", request.voice, "-s", str(request.words_per_minute),
                "-p", str(request.pitch), "-w", request.path, "--", request.text,
            ],
            capture_output=True,
            check=True,
        )  # fmt: skip
        if not Path(request.path).exists():
            raise VoiceError("the engine said nothing", item=request.voice)


def _short_path(data_path: str) -> str:
    if len(data_path) <= _PATH_LIMIT:
        return data_path
    link = Path(tempfile.mkdtemp(prefix="voices-")) / "espeak-ng-data"
    link.symlink_to(data_path)
    return str(link)


def _requests(lines: Iterator[str]) -> Iterator[Utter]:
    for number, line in enumerate(lines, start=1):
        try:
            yield Utter(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise VoiceError(f"not a request ({error})", item=f"line {number}") from error


def main(arguments: Sequence[str]) -> int:
    """The worker: engine kind as argument, requests on stdin, one answer per line on stdout."""
    try:
        speaker = _Library() if arguments == ["library"] else _Program()
        print(speaker.name)
        for request in _requests(iter(sys.stdin)):
            speaker.say(request)
            print(request.path)
    except (AuricleError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
