"""The three endpoint rules."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from features.endpoint import EndpointConfig, Endpointer
from features.tokens import TokenTable
from governance.errors import ConfigError

TABLE = TokenTable.from_alphabet("ab")
CONFIG = EndpointConfig(
    trailing_silence_ms=200, initial_silence_ms=400, max_utterance_ms=1000, least_speech_frames=1
)


def frames(pattern: str) -> NDArray[np.float64]:
    """``-`` blank, ``_`` space, ``a`` a letter, ``?`` an unsure letter: half a, half b."""
    rows = {"-": [0.97, 0.01, 0.01, 0.01], "_": [0.01, 0.97, 0.01, 0.01],
            "a": [0.01, 0.01, 0.97, 0.01], "?": [0.34, 0.02, 0.32, 0.32]}  # fmt: skip
    return np.log(np.array([rows[symbol] for symbol in pattern]))


def run(pattern: str, config: EndpointConfig = CONFIG) -> list[tuple[int, str, bool]]:
    endpointer = Endpointer(config, TABLE, frame_ms=40)
    return [(e.frame, e.rule, e.speech) for e in endpointer.accept(frames(pattern))]


def test_silence_after_speech() -> None:
    assert run("--a-a-----") == [(10, "trailing-silence", True)]
    assert run("--a-a----") == []


def test_spaces_are_silence_and_unsure_letters_are_speech() -> None:
    assert run("--a-a_----") == [(10, "trailing-silence", True)]
    assert run("--a---?-----") == [(12, "trailing-silence", True)]


def test_a_lone_letter_is_ended_by_no_pause_but_by_long_silence() -> None:
    config = replace(CONFIG, least_speech_frames=3)
    assert run("-a-a-----a-----", config) == [(15, "trailing-silence", True)]
    assert run("-a----------", config) == [(12, "initial-silence", True)]


def test_long_silence_at_the_start_and_again() -> None:
    assert run("-" * 20) == [(10, "initial-silence", False), (20, "initial-silence", False)]


def test_an_endless_utterance_is_cut() -> None:
    assert run("a-" * 13) == [(25, "max-utterance", True)]


def test_the_next_utterance_starts_afresh() -> None:
    assert run("a-----" + "--a-----") == [
        (6, "trailing-silence", True), (14, "trailing-silence", True)
    ]  # fmt: skip


def test_state_is_shown_and_reset() -> None:
    endpointer = Endpointer(CONFIG, TABLE, frame_ms=40)
    endpointer.accept(frames("-a--"))
    assert endpointer.in_speech and endpointer.trailing_silence_ms == 80
    endpointer.reset()
    assert not endpointer.in_speech and endpointer.trailing_silence_ms == 0


def test_bad_rules_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"endpoint\.trailing_silence_ms"):
        EndpointConfig(trailing_silence_ms=0)
    with pytest.raises(ConfigError, match=r"endpoint\.speech_threshold"):
        EndpointConfig(speech_threshold=1.0)


def voiced(pattern: str) -> NDArray[np.bool_]:
    return np.array([symbol == "v" for symbol in pattern])


def run_with_voice(letters: str, voices: str, config: EndpointConfig) -> list[tuple[int, str]]:
    endpointer = Endpointer(config, TABLE, frame_ms=40)
    return [(e.frame, e.rule) for e in endpointer.accept(frames(letters), voiced(voices))]


def test_a_voice_between_two_letters_is_no_pause() -> None:
    config = replace(CONFIG, trailing_silence_ms=120)
    assert run("-a----a", config) == [(5, "trailing-silence", True)]
    assert run_with_voice("-a----a----", "vvvvvvvv---", config) == [(11, "trailing-silence")]


def test_in_a_room_that_is_never_quiet_the_words_alone_decide() -> None:
    config = replace(CONFIG, word_gap_ms=320)
    letters, noise = "-a-a" + 12 * "-", 16 * "v"
    assert run_with_voice(letters, noise, config) == [(12, "word-gap")]
    assert run_with_voice(letters, 4 * "v" + 12 * "-", config)[0] == (9, "trailing-silence")


def test_long_noise_without_a_word_ends_what_never_began() -> None:
    assert run_with_voice(12 * "-", 12 * "v", CONFIG) == [(10, "initial-silence")]
