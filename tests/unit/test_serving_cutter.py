"""Long recordings in pieces, words in seconds, and logs that hold no content."""

import io
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.telemetry import JsonLogFormatter
from serving import logs
from serving.assemble import segments
from serving.front.cutter import CutRule, PauseCutter, Piece
from serving.schema import Transcript, Word

RULE = CutRule(max_frames=60, min_frames=20, quiet_frames=4, margin_frames=5)


def pieces_of(x_TF: np.ndarray, cuts: list[int], rule: CutRule = RULE) -> list[Piece]:
    cutter = PauseCutter(rule)
    pieces = []
    for part in np.split(x_TF, sorted({min(cut, len(x_TF)) for cut in cuts})):
        pieces += cutter.accept(part)
    return pieces + cutter.finish()


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(0, 400),
    seed=st.integers(0, 99),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_every_frame_is_in_one_piece_whatever_the_chunking(
    frames: int, seed: int, cuts: list[int]
) -> None:
    x_TF = np.random.default_rng(seed).normal(0, 1, (frames, 3)).astype(np.float32)
    pieces = pieces_of(x_TF, cuts)
    whole = pieces_of(x_TF, [])
    assert [piece.start_frame for piece in pieces] == [piece.start_frame for piece in whole]
    joined = np.concatenate([piece.x_TF for piece in pieces]) if pieces else x_TF[:0]
    assert np.array_equal(joined, x_TF)
    assert all(len(piece.x_TF) <= RULE.max_frames for piece in pieces)
    assert all(len(piece.x_TF) >= RULE.min_frames for piece in pieces[:-1])


def test_the_cut_falls_into_the_pause() -> None:
    x_TF = np.ones((100, 3), np.float32)
    x_TF[40:48] = -3.0
    first, second = pieces_of(x_TF, [])
    assert 40 <= len(first.x_TF) <= 48
    assert second.start_frame == len(first.x_TF)


def word(text: str, start: float, end: float) -> Word:
    return Word(word=text, start=start, end=end, confidence=0.5)


def test_segments_end_at_pauses_and_before_they_grow_too_long() -> None:
    spoken = [word("a", 0.0, 0.4), word("b", 0.6, 1.0), word("c", 2.5, 3.0)]
    parts = segments(spoken)
    assert [(part.id, part.text, part.start, part.end) for part in parts] == [
        (0, "a b", 0.0, 1.0),
        (1, "c", 2.5, 3.0),
    ]
    steady = [word("x", 0.5 * n, 0.5 * n + 0.4) for n in range(80)]
    parts = segments(steady)
    assert all(part.end - part.start <= 15.0 for part in parts)
    assert sum(len(part.words) for part in parts) == 80
    assert segments([]) == ()


def test_a_transcript_refuses_fields_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="surprise"):
        Transcript.model_validate({"text": "", "surprise": 1})


def test_logs_hold_names_and_counts_and_never_content() -> None:
    sink = io.StringIO()
    logger = logging.getLogger(logs.LOGGER_NAME)
    logs.configure()
    handlers = list(logger.handlers)
    logs.configure()
    assert logger.handlers == handlers  # a second call changes nothing
    handler = next(one for one in handlers if isinstance(one.formatter, JsonLogFormatter))
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(sink)
    try:
        logs.event("transcribed", audio_s=1.5, outcome="ok", transcript="canary phrase")
        try:
            raise ValueError("canary phrase")
        except ValueError as error:
            logs.crash("request_failed", error)
    finally:
        handler.setStream(before)
    first, second = (json.loads(line) for line in sink.getvalue().splitlines())
    assert first["message"] == "transcribed" and first["audio_s"] == 1.5
    assert second["error"] == "ValueError" and "error_place" in second
    assert "canary" not in sink.getvalue()
