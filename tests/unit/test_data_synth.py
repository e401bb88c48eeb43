import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import grammar, synth, synth_voices
from data.synth import SynthConfig, read_rows, synthesise
from data.text import normalise
from governance.errors import AuricleError, ConfigError

_SMALL = SynthConfig(train_utterances=14, dev_utterances=4, test_utterances=4, seed=11)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "builtin"
    ticks: list[tuple[int, int]] = []
    report = synthesise(folder, _SMALL, lambda done, total: ticks.append((done, total)), workers=2)
    assert ticks == [(done, 22) for done in range(1, 23)]
    assert report.utterances == 22 and report.speakers == 22
    assert report.engine.startswith("espeak-ng 1.")
    return folder


def test_the_folder_is_a_corpus_as_others_bring_it(corpus: Path) -> None:
    rows = list(read_rows(corpus))
    assert Counter(row["split"] for row in rows) == {"train": 14, "dev": 4, "test": 4}
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        samples_T, rate_hz = soundfile.read(corpus / str(row["path"]), dtype="float32")
        assert rate_hz == row["sample_rate"]
        assert len(samples_T) / rate_hz == pytest.approx(row["duration_s"], abs=1e-5)
        assert 0.5 < len(samples_T) / rate_hz < 12
        assert 0.1 < np.abs(samples_T).max() <= 1.0
        assert row["text"] == normalise(str(row["text"]))
        assert "espeak-ng engine, GPL-3.0" in str(row["licence"])
        assert row["consent"] == ["eval", "train"]


def test_there_is_speech_between_two_silences(corpus: Path) -> None:
    clean = [row for row in read_rows(corpus) if row["condition"] == "clean"]
    assert clean
    for row in clean:
        samples_T, rate_hz = soundfile.read(corpus / str(row["path"]))
        hop = rate_hz // 100
        level_N = np.sqrt((samples_T[: len(samples_T) // hop * hop].reshape(-1, hop) ** 2).mean(1))
        loud_N = np.flatnonzero(level_N > 0.05 * level_N.max())
        assert loud_N[0] >= 18 and len(level_N) - loud_N[-1] >= 18
        assert len(loud_N) > 20


def test_equal_seeds_give_equal_bytes_with_any_number_of_workers(
    corpus: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    synthesise(again, _SMALL, workers=1)
    names = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert len(names) == 22 + 2
    for name in names:
        assert (again / name).read_bytes() == (corpus / name).read_bytes(), name


def test_another_seed_says_other_things(corpus: Path, tmp_path: Path) -> None:
    other = SynthConfig(train_utterances=14, dev_utterances=0, test_utterances=0, seed=12)
    synthesise(tmp_path / "other", other)
    texts = [row["text"] for row in read_rows(tmp_path / "other")]
    assert texts != [row["text"] for row in read_rows(corpus) if row["split"] == "train"]


def test_voices_of_dev_and_test_are_unseen_in_training() -> None:
    voices = {split: synth_voices.speakers(split) for split in ("train", "dev", "test")}
    variants = {split: {voice.split("+")[1] for voice in voices[split]} for split in voices}
    assert len(voices["train"]) == len(set(voices["train"])) >= 40
    assert not variants["train"] & (variants["dev"] | variants["test"])
    assert not variants["dev"] & variants["test"]
    assert len({voice.split("+")[0] for voice in voices["train"]}) == 8


@pytest.mark.slow
def test_every_voice_of_the_catalogue_exists_and_differs(tmp_path: Path) -> None:
    voices = [voice for split in ("train", "dev", "test") for voice in synth_voices.speakers(split)]
    requests = [
        synth_voices.Utter(text="twenty hours", voice=voice, words_per_minute=170, pitch=50,
                           pitch_range=50, path=str(tmp_path / f"{place}.wav"))
        for place, voice in enumerate(voices)
    ]  # fmt: skip
    synth_voices.speak(requests)
    waves = {Path(request.path).read_bytes() for request in requests}
    assert len(waves) == len(voices)


def test_sentences_stay_in_the_vocabulary_and_held_out_ones_out_of_train() -> None:
    clips = synth._plan(SynthConfig(train_utterances=600, dev_utterances=60, test_utterances=60))
    vocabulary = grammar.vocabulary()
    assert 80 <= len(vocabulary) <= 150
    assert {word for clip in clips for word in clip.text.split()} <= vocabulary
    train = {clip.text for clip in clips if clip.split == "train"}
    held_out = {clip.text for clip in clips if clip.split != "train" and grammar.is_open(clip.text)}
    assert held_out and not train & held_out
    assert len({word for text in train for word in text.split()}) > 0.9 * len(vocabulary)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AuricleError, match=r"thesis\.txt.*choose an empty folder"):
        synthesise(tmp_path, _SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_second_run_replaces_the_first(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    synthesise(folder, SynthConfig(train_utterances=3, dev_utterances=0, test_utterances=0))
    synthesise(folder, SynthConfig(train_utterances=1, dev_utterances=1, test_utterances=0))
    assert len(list((folder / "audio").iterdir())) == 2 == len(list(read_rows(folder)))


@pytest.mark.parametrize(
    "wrong",
    [{"snr_low_db": 30.0}, {"silence_high_s": 0.1}],
)
def test_a_range_that_begins_above_its_end_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="synth"):
        SynthConfig(**wrong)  # type: ignore[arg-type]


def test_an_unknown_voice_is_named(tmp_path: Path) -> None:
    request = synth_voices.Utter(text="five", voice="xx-none+m3", words_per_minute=170, pitch=50,
                                 pitch_range=50, path=str(tmp_path / "x.wav"))  # fmt: skip
    with pytest.raises(synth_voices.VoiceError, match=r"xx-none\+m3.*unknown voice"):
        synth_voices.speak([request])


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without the wheel, and a folder of programs."""
    find = synth_voices.importlib.util.find_spec
    monkeypatch.setattr(
        synth_voices.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "espeakng_loader" else find(name, *rest),
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    yield programs


def test_without_any_engine_the_extra_is_named(without_library: Path, tmp_path: Path) -> None:
    with pytest.raises(AuricleError, match=r"no speech engine.*pip install 'auricle\[synth\]'"):
        synthesise(tmp_path / "corpus", _SMALL)
    assert not (tmp_path / "corpus").exists()


def test_the_engine_never_enters_this_process(corpus: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc to list what is loaded")
    assert "espeak" not in maps.read_text()
    assert "espeakng_loader" not in sys.modules


_PROGRAM = f"""# The espeak-ng program's command line, over the library, where only the wheel is.
import sys
sys.path.insert(0, {str(Path(synth_voices.__file__).parents[1])!r})
from data import synth_voices
if sys.argv[1:] == ["--version"]:
    print("eSpeak NG text-to-speech: 1.52.0  Data at: here")
    sys.exit()
flags = dict(zip(sys.argv[1:-2:2], sys.argv[2:-2:2]))
assert sys.argv[-2] == "--"
synth_voices._Library().say(synth_voices.Utter(text=sys.argv[-1], voice=flags["-v"],
    words_per_minute=int(flags["-s"]), pitch=int(flags["-p"]), pitch_range=50, path=flags["-w"]))
"""


def test_the_installed_program_is_used_where_the_library_is_missing(
    without_library: Path, tmp_path: Path
) -> None:
    program = without_library / "espeak-ng"
    code = without_library / "espeak-ng.py"
    code.write_text(_PROGRAM)
    # Not python itself as the interpreter: a #! line cannot name a path with a space in it.
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(code)])} "$@"\n')
    program.chmod(0o755)
    assert synth_voices.engine() == "program"
    request = synth_voices.Utter(text="minus five", voice="en+m3", words_per_minute=160,
                                 pitch=40, pitch_range=50, path=f"{tmp_path}/x.wav")  # fmt: skip
    assert synth_voices.speak([request]) == "espeak-ng 1.52.0"
    assert soundfile.info(request.path).duration > 0.4


def test_a_worker_that_gets_nonsense_fails_and_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "data.synth_voices", "library"],
        input="not json\n", capture_output=True, text=True, check=False,
        cwd=Path(synth_voices.__file__).parents[1], env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 1 and "request" in done.stderr and "Traceback" not in done.stderr
