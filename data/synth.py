"""The built-in corpus: spoken commands by a hundred synthetic voices, in rooms and over noise.

Same seed, same bytes. It exists so that the whole pipeline runs on a laptop without anyone's
recordings; it is no measure of how a model does on people.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from data import grammar, rooms, synth_voices
from data.audio import encode_flac_pcm16
from data.units import SAMPLE_RATE_HZ, seconds_to_samples
from governance.bounds import NotNegative, Share, Whole, require_order
from governance.canonical import canonical_json, tree_digest, write_atomic
from governance.errors import AuricleError

LICENCE = (
    "CC0-1.0 (text and recordings of this project; spoken by the espeak-ng engine, GPL-3.0, run "
    "as a separate program: its output is unencumbered)"
)
CORPUS_FILES = ("audio", "manifest.jsonl", "README.md")

_SPLITS = ("test", "dev", "train")  # the held-out sentences are drawn first
_TRIES = 50
_BABBLE_VOICES = 24
_NOISE_FLOOR_DB = (55.0, 75.0)  # below the speech: no recording is digitally silent
_README = """# The built-in corpus

Made by `data.synth` of Auricle: spoken numbers and household commands, {count} clips,
{speakers} synthetic voices ({engine}), seed {seed}. Licence: {licence}.

Voices of dev and test are not heard in train, nor are their sentences with numbers.
Judge a model for people on people.
"""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """How much is said, and under what conditions. Shares are probabilities, drawn per clip."""

    train_utterances: Whole = 900
    dev_utterances: Whole = 80
    test_utterances: Whole = 80
    seed: Whole = 20_240
    room_share: Share = 0.35
    noise_share: Share = 0.5
    telephone_share: Share = 0.1
    snr_low_db: float = 5.0
    snr_high_db: float = 25.0
    silence_low_s: NotNegative = 0.2  # either side of the sentence
    silence_high_s: NotNegative = 1.0

    def __post_init__(self) -> None:
        require_order(
            self, "synth", ("snr_low_db", "snr_high_db"), ("silence_low_s", "silence_high_s")
        )


@dataclass(frozen=True, kw_only=True)
class SynthReport:
    """What was made."""

    utterances: int
    speakers: int
    audio_s: float
    engine: str  # name and version
    digest: str  # of every byte of the folder


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """One planned recording."""

    split: str
    index: int
    text: str
    voice: str

    @property
    def name(self) -> str:
        return f"{self.split}_{self.index:05d}"


def synthesise(
    out_root: Path, config: SynthConfig, progress: Progress | None = None, workers: int = 2
) -> SynthReport:
    """Write ``audio/*.flac``, ``manifest.jsonl`` and ``README.md`` under ``out_root``.

    ``progress`` is told (done, total) clips. The bytes do not depend on ``workers``.
    """
    synth_voices.engine()  # no engine: say so before anything is written
    _clear(out_root)
    clips = _plan(config)
    with tempfile.TemporaryDirectory(prefix="synth-") as name, ThreadPoolExecutor(workers) as pool:
        folder = Path(name)
        engine = _speak(clips, config, folder, pool)
        crowd = [clip for clip in clips if clip.split == "train"][:_BABBLE_VOICES]
        babble = [_dry(clip, config, folder) for clip in crowd]
        rows = []
        made = pool.map(lambda clip: _record(clip, config, folder, out_root, babble), clips)
        for done, row in enumerate(made, start=1):
            rows.append({**row, "source": f"auricle data.synth seed {config.seed}, {engine}"})
            if progress is not None:
                progress(done, len(clips))
    speakers = len({clip.voice for clip in clips})
    readme = _README.format(
        count=len(clips), speakers=speakers, engine=engine, seed=config.seed, licence=LICENCE
    )
    write_atomic(out_root / "README.md", readme)
    write_atomic(out_root / "manifest.jsonl", "".join(canonical_json(row) + "\n" for row in rows))
    return SynthReport(
        utterances=len(rows),
        speakers=speakers,
        audio_s=round(sum(float(str(row["duration_s"])) for row in rows), 3),
        engine=engine,
        digest=tree_digest(out_root),
    )


def _clear(out_root: Path) -> None:
    """Make room for a new corpus, and touch nothing that this module did not write."""
    strangers = [path for path in out_root.glob("*") if path.name not in CORPUS_FILES]
    if strangers or (out_root.exists() and not out_root.is_dir()):
        raise AuricleError(
            "the folder holds something else",
            item=str(strangers[0] if strangers else out_root),
            mend="choose an empty folder for the built-in corpus",
        )
    shutil.rmtree(out_root / "audio", ignore_errors=True)
    (out_root / "audio").mkdir(parents=True)


def _plan(config: SynthConfig) -> list[_Clip]:
    """Who says what: voices in turn, and no held-out sentence in train.

    Fixed phrases ("thank you") are few and are heard everywhere: only sentences that hold a
    number, of which there are thousands, are kept apart.
    """
    held_out: set[str] = set()
    clips: list[_Clip] = []
    for split in _SPLITS:
        voices = synth_voices.speakers(split)
        for index in range(getattr(config, f"{split}_utterances")):
            generator = _generator(config, split, index, "text")
            text = grammar.sentence(generator)
            for _ in range(_TRIES):
                if text not in held_out:
                    break
                text = grammar.sentence(generator)
            if split != "train" and grammar.is_open(text):
                held_out.add(text)
            voice = voices[index % len(voices)]
            clips.append(_Clip(split=split, index=index, text=text, voice=voice))
    return clips


def _generator(config: SynthConfig, *names: object) -> np.random.Generator:
    key = hashlib.sha256("\x1f".join(map(str, (config.seed, *names))).encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))


def _speak(
    clips: Sequence[_Clip], config: SynthConfig, folder: Path, pool: ThreadPoolExecutor
) -> str:
    """Dry speech, one process per voice; returns the engine's name."""
    by_voice: dict[str, list[synth_voices.Utter]] = {}
    for clip in clips:
        by_voice.setdefault(clip.voice, []).append(_request(clip, config, folder))
    names = list(pool.map(synth_voices.speak, by_voice.values()))
    return names[0] if names else synth_voices.engine()


def _request(clip: _Clip, config: SynthConfig, folder: Path) -> synth_voices.Utter:
    """The voice's own pace and pitch, a little different each time."""
    own = _generator(config, clip.voice, "manner")
    pace, pitch, liveliness = own.uniform(135, 185), own.uniform(30, 70), own.uniform(30, 70)
    now = _generator(config, clip.split, clip.index, "manner")
    return synth_voices.Utter(
        text=clip.text,
        voice=clip.voice,
        words_per_minute=int(pace + now.uniform(-12, 12)),
        pitch=int(pitch + now.uniform(-6, 6)),
        pitch_range=int(liveliness),
        path=str(folder / f"{clip.name}.wav"),
    )


def _dry(clip: _Clip, config: SynthConfig, folder: Path) -> np.ndarray:
    """The engine's wave at 16 kHz without its own pauses, through a throat of drawn length.

    Reading the wave as if at another rate moves formants and pitch together, as size does.
    """
    samples_T, rate_hz = soundfile.read(folder / f"{clip.name}.wav", dtype="float32")
    size = float(_generator(config, clip.voice, "size").uniform(0.93, 1.08))
    resampled_T = rooms.without_rumble(
        soxr.resample(samples_T, rate_hz * size, SAMPLE_RATE_HZ, quality="HQ")
    )
    loud = np.flatnonzero(np.abs(resampled_T) > 0.01 * np.max(np.abs(resampled_T)))
    trimmed: np.ndarray = resampled_T[loud[0] : loud[-1] + 1]
    return trimmed


def _record(
    clip: _Clip, config: SynthConfig, folder: Path, out_root: Path, babble: Sequence[np.ndarray]
) -> dict[str, object]:
    """Put the sentence into its place, write the file, and return its manifest row."""
    generator = _generator(config, clip.split, clip.index, "place")
    samples_T, rate_hz, labels = _place(_dry(clip, config, folder), generator, config, babble)
    peak = 10 ** (generator.uniform(-18.0, -1.0) / 20)
    samples_T = samples_T * np.float32(peak / max(float(np.max(np.abs(samples_T))), 1e-9))
    path = f"audio/{clip.name}.flac"
    content = encode_flac_pcm16(samples_T[:, None].astype(np.float32), rate_hz)
    (out_root / path).write_bytes(content)
    return {
        "id": f"synth_{clip.name}",
        "path": path,
        "text": clip.text,
        "speaker": clip.voice,
        "language": "en",
        "split": clip.split,
        "licence": LICENCE,
        "consent": ["eval", "train"],
        "transcript_kind": "read-script",
        "sample_rate": rate_hz,
        "duration_s": round(len(samples_T) / rate_hz, 6),
        **labels,
    }


def _place(
    dry_T: np.ndarray, generator: np.random.Generator, config: SynthConfig,
    babble: Sequence[np.ndarray],
) -> tuple[np.ndarray, int, Mapping[str, object]]:  # fmt: skip
    """Silence either side, then room, noise and line as drawn: (wave, rate, labels)."""
    in_room, in_noise, by_telephone = generator.random(3) < (
        config.room_share, config.noise_share, config.telephone_share,
    )  # fmt: skip
    pauses_s = generator.uniform(config.silence_low_s, config.silence_high_s, 2)
    before, after = (seconds_to_samples(float(pause_s)) for pause_s in pauses_s)
    samples_T = np.pad(dry_T / np.max(np.abs(dry_T)) * 0.5, (before, after)).astype(np.float32)
    if in_room:
        samples_T = rooms.reverberate(samples_T, rooms.room_response(generator))
    kind, snr_db = "pink", float(generator.uniform(*_NOISE_FLOOR_DB))
    if in_noise:
        kind = rooms.NOISES[int(generator.integers(len(rooms.NOISES)))]
        snr_db = float(generator.uniform(config.snr_low_db, config.snr_high_db))
    background_T = rooms.noise(kind, len(samples_T), generator, babble)
    samples_T = rooms.add_noise(samples_T, background_T, snr_db)
    names = [name for name, on in (("room", in_room), (kind, in_noise)) if on]
    if by_telephone:
        samples_T, names = rooms.telephone(samples_T), [*names, "telephone"]
    rate_hz = rooms.TELEPHONE_RATE_HZ if by_telephone else SAMPLE_RATE_HZ
    labels = {"condition": "+".join(names) or "clean", "mixed_snr_db": round(snr_db, 2)}
    return samples_T, rate_hz, labels


def read_rows(folder: Path) -> Iterator[dict[str, object]]:
    """The manifest of a synthesised folder, row by row."""
    with (folder / "manifest.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
