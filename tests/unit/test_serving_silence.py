"""What a model doubts is not shown: not in a file, not in a partial, not in a final."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.bundle import BUNDLE_FILE, Bundle, write_bundle
from serving.loading import load_recognizer
from serving.recognizer import AudioRequest, AuricleRecognizer
from serving.schema import Transcript
from serving.settings import ServeSettings
from serving.streaming.streams import StreamEvent, StreamRequest
from serving.streaming.transcripts import stream_transcript
from tests.support_bundle import babble, hush, make_bundle
from tests.support_service import pcm16, wav

SOUND = np.concatenate([babble(3.0), hush(1.5), babble(2.0, seed=9), hush(1.0)])


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> AuricleRecognizer:
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return load_recognizer(ServeSettings(bundle_dir=folder, max_streams=2))


def limited(recognizer: AuricleRecognizer, limit: float | None) -> AuricleRecognizer:
    made = copy.copy(recognizer)
    made.config = replace(recognizer.config, doubt_limit=limit)
    return made


def streamed(recognizer: AuricleRecognizer) -> tuple[list[StreamEvent], Transcript]:
    stream = recognizer.open_stream(StreamRequest())
    pcm, events = pcm16(SOUND).tobytes(), []
    for at in range(0, len(pcm), 6400):
        events += stream.accept(pcm[at : at + 6400])
    return [*events, *stream.finalize()], stream_transcript(stream.live)


def of_file(recognizer: AuricleRecognizer) -> tuple[str, tuple[str, ...]]:
    (answer,) = recognizer.recognize([AudioRequest(content=wav(SOUND))])
    assert answer.transcript is not None
    return answer.transcript.text, answer.transcript.warnings


def test_without_a_limit_every_word_is_believed(recognizer: AuricleRecognizer) -> None:
    assert of_file(limited(recognizer, None)) == of_file(limited(recognizer, 99.0))
    assert of_file(recognizer)[0]
    assert streamed(limited(recognizer, None))[0] == streamed(limited(recognizer, 99.0))[0]


def test_a_file_that_is_doubted_is_empty_and_says_so(recognizer: AuricleRecognizer) -> None:
    text, warnings = of_file(limited(recognizer, 1e-9))
    assert text == "" and "no_speech" in warnings


def test_a_stream_that_is_doubted_shows_no_word(recognizer: AuricleRecognizer) -> None:
    believed, _ = streamed(recognizer)
    doubted, transcript = streamed(limited(recognizer, 1e-9))
    assert any(event.text for event in believed) and not any(event.text for event in doubted)
    ends = [[event.end_s for event in side if event.is_final] for side in (believed, doubted)]
    assert ends[0] == ends[1], "endpoints stay where they are"
    assert transcript.text == "" and "no_speech" in transcript.warnings


def test_each_utterance_of_a_stream_is_judged_alone(recognizer: AuricleRecognizer) -> None:
    """A limit between the doubts of two utterances keeps one of them, as it was."""

    def kept(limit: float | None) -> list[StreamEvent]:
        events, _ = streamed(limited(recognizer, limit))
        return [event for event in events if event.is_final and event.text]

    believed, low, high = kept(None), 0.0, 3.5  # ln of the alphabet's size is 3.3
    assert len(believed) >= 2
    some: list[StreamEvent] = []
    while high - low > 1e-4 and not 0 < len(some) < len(believed):
        middle = (low + high) / 2
        some = kept(middle)
        low, high = (middle, high) if not some else (low, middle)
    assert 0 < len(some) < len(believed) and all(event in believed for event in some)


def test_a_partial_is_judged_as_a_final_is(recognizer: AuricleRecognizer) -> None:
    believed, _ = streamed(recognizer)
    for limit in (1.0, 1.5, 2.0):
        events, _ = streamed(limited(recognizer, limit))
        for mine, plain in zip(events, believed, strict=True):
            assert mine.text in ("", plain.text)


def test_a_bundle_states_its_limit_and_an_older_one_none(tmp_path: Path) -> None:
    old = Bundle.load(make_bundle(tmp_path / "old"))
    assert old.config.doubt_limit is None
    assert "doubt_limit" not in (old.folder / BUNDLE_FILE).read_text()
    config = replace(old.config, doubt_limit=0.7)
    write_bundle(tmp_path / "new", config, {name: old.folder / name for name in old.files})
    assert Bundle.load(tmp_path / "new").config.doubt_limit == 0.7
    assert load_recognizer(ServeSettings(bundle_dir=tmp_path / "new")).config.doubt_limit == 0.7
