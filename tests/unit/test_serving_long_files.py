"""Long recordings: seams that lose nothing, flat memory, even noise, channels apart."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from serving.api import subtitles
from serving.front.cutter import CutRule, is_steady
from serving.loading import load_recognizer
from serving.recognizer import AudioRequest, AuricleRecognizer
from serving.schema import Transcript
from serving.settings import ServeSettings
from tests.support_bundle import babble, hush, make_bundle
from tests.support_service import pcm16, running, wav

ROOT = Path(__file__).resolve().parents[2]
# Of the tiny model: a mean over 32 frames in each of two layers, and its convolutions.
MEMORY_S = 3.5
WORD_S = 1.5  # its words are shorter
_MOST_MORE_MIB = 64  # two hours, over ten minutes
_CHILD = """
import resource, sys
from pathlib import Path
from serving.loading import load_recognizer
from serving.recognizer import AudioRequest
from serving.settings import ServeSettings
recognizer = load_recognizer(ServeSettings(bundle_dir=Path(sys.argv[1])))
(answer,) = recognizer.recognize([AudioRequest(content=Path(sys.argv[2]))])
transcript = answer.transcript
peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(transcript.duration_s, len(transcript.words), transcript.words[-1].end, peak_kib)
"""


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def recognizer(bundle_dir: Path) -> AuricleRecognizer:
    return load_recognizer(ServeSettings(bundle_dir=bundle_dir))


def heard(recognizer: AuricleRecognizer, content: bytes) -> Transcript:
    (answer,) = recognizer.recognize([AudioRequest(content=content)])
    assert answer.transcript is not None
    return answer.transcript


def conversation(turns: int) -> NDArray[np.float32]:
    """Speech with pauses."""
    parts = [
        part for turn in range(turns) for part in (babble(5.0 + turn % 3, seed=turn), hush(1.0))
    ]
    return np.concatenate(parts)


def test_seams_lose_nothing(recognizer: AuricleRecognizer, bundle_dir: Path) -> None:
    """Beyond the model's memory of a seam, words and times are those of the uncut recording."""
    sound = wav(conversation(18))
    uncut = load_recognizer(ServeSettings(bundle_dir=bundle_dir))
    uncut._cut_rule = CutRule(max_frames=10**6)
    request = AudioRequest(content=sound)
    seams_s = [piece.start_frame / 100 for piece in recognizer.prepare(request).pieces][1:]
    assert len(seams_s) > 10

    def settled(transcript: Transcript) -> list[tuple[str, float, float]]:
        return [
            (word.word, word.start, word.end)
            for word in transcript.words
            if not any(
                word.end - seam_s > -WORD_S and word.start - seam_s < MEMORY_S for seam_s in seams_s
            )
        ]

    reference, found = settled(heard(uncut, sound)), settled(heard(recognizer, sound))
    assert len(reference) > 60
    assert [word for word, _, _ in found] == [word for word, _, _ in reference]
    assert np.allclose([times for _, *times in found], [times for _, *times in reference])


@pytest.mark.parametrize("level", [0.0, 1e-3, 0.05])
@pytest.mark.parametrize("seconds", [2.0, 70.0])
def test_silence_and_even_noise_say_nothing(
    recognizer: AuricleRecognizer, level: float, seconds: float
) -> None:
    noise = np.random.default_rng(3).normal(0, 1, round(seconds * 16_000)) * level
    found = heard(recognizer, wav(noise.astype(np.float32)))
    assert found.text == "" and found.warnings == ("no_speech",)


def test_speech_in_noise_is_not_taken_for_noise(recognizer: AuricleRecognizer) -> None:
    speech = conversation(2)
    noise = np.random.default_rng(3).normal(0, 1, len(speech))
    noisy = speech + noise * np.sqrt((speech**2).mean())  # as loud as the speech
    (piece, *_) = recognizer.prepare(AudioRequest(content=wav(noisy.astype(np.float32)))).pieces
    assert not piece.steady


def test_less_than_a_second_is_never_called_steady() -> None:
    assert not is_steady(np.zeros(99)) and is_steady(np.zeros(100))


def test_channels_are_transcribed_for_themselves(
    recognizer: AuricleRecognizer, bundle_dir: Path
) -> None:
    first = np.concatenate([babble(8.0, seed=1), hush(30.0), babble(6.0, seed=3)])
    second = np.concatenate([hush(12.0), babble(9.0, seed=2), hush(23.0)])
    sink = io.BytesIO()
    soundfile.write(
        sink, pcm16(np.stack([first, second], axis=1)), 16_000, format="WAV", subtype="PCM_16"
    )
    alone = [heard(recognizer, wav(samples)) for samples in (first, second)]
    fields = {"model": "tiny", "multichannel": "true", "response_format": "verbose_json"}
    fields["timestamp_granularities[]"] = ["word", "segment"]  # type: ignore[assignment]
    with running(bundle_dir) as (client, _):
        files = {"file": ("a.wav", sink.getvalue())}
        body = client.post("/v1/audio/transcriptions", data=fields, files=files).json()
        wide = io.BytesIO()
        soundfile.write(wide, np.zeros((16_000, 9), np.int16), 16_000, format="WAV")
        refused = client.post(
            "/v1/audio/transcriptions", data=fields, files={"file": ("a.wav", wide.getvalue())}
        )
        streamed = client.post(
            "/v1/audio/transcriptions",
            data={"model": "tiny", "multichannel": "true", "stream": "true"},
            files=files,
        )
    for channel, expected in enumerate(alone):
        words = [word for word in body["words"] if word["channel"] == channel]
        assert [word["word"] for word in words] == expected.text.split()
    starts = [segment["start"] for segment in body["segments"]]
    assert starts == sorted(starts) and {0, 1} == {one["channel"] for one in body["segments"]}
    assert " ".join(segment["text"] for segment in body["segments"]) == body["text"]
    transcript = Transcript.model_validate(body["auricle"])
    assert {word.channel for word in transcript.words} == {0, 1}
    assert "<v channel 1>" in subtitles.vtt(transcript)
    assert refused.status_code == 400 and "9 channels" in refused.json()["error"]["message"]
    assert streamed.status_code == 400 and streamed.json()["error"]["param"] == "stream"


def _written(path: Path, minutes: int) -> None:
    """A minute of even noise, then ten seconds of speech in it, over and over, as FLAC."""
    generator = np.random.default_rng(1)
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16", format="FLAC") as file:
        for minute in range(minutes):
            noise = generator.normal(0, 1e-3, 60 * 16_000).astype(np.float32)
            noise[-160_000:] += babble(10.0, seed=minute)
            file.write(noise)


@pytest.mark.slow
def test_two_hours_take_the_memory_of_ten_minutes(bundle_dir: Path, tmp_path: Path) -> None:
    peaks_mib = []
    for minutes in (10, 120):
        path = tmp_path / f"{minutes}.flac"
        _written(path, minutes)
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(bundle_dir), str(path)],
            cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        duration_s, words, last_s, peak_kib = (float(part) for part in done.stdout.split())
        assert duration_s == 60 * minutes and words > 20 * minutes and last_s > duration_s - 5
        peaks_mib.append(peak_kib / 1024)
    assert peaks_mib[1] - peaks_mib[0] < _MOST_MORE_MIB, peaks_mib
