from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.manifest import Utterance
from data.split import (
    Leak,
    assign,
    empty_splits,
    held_out_strangers,
    leaks,
    speaker_split,
    voices_note,
)
from governance.errors import ConfigError


def _utterance(utterance_id: str, **fields: Any) -> Utterance:
    base: dict[str, Any] = {
        "corpus": "c", "shard": "s.tar", "offset": 0, "length": 1, "text": "hello",
        "normalised_text": "hello", "normaliser": "en-1", "speaker": "", "language": "en",
        "split": "", "licence": "CC0-1.0", "consent": ("eval", "train"), "source": "x",
        "source_digest": "sha256:0", "native_format": "wav/pcm_16", "native_rate_hz": 16000,
        "native_channels": 1, "duration_s": 1.0, "level_dbfs": -20.0, "peak_dbfs": -3.0,
        "clipping_ratio": 0.0, "dc_offset": 0.0, "snr_db": 20.0, "bandwidth_hz": 7000.0,
        "speech_ratio": 0.5,
    }  # fmt: skip
    return Utterance(utterance_id=utterance_id, **{**base, **fields})


def _assign(rows: list[Utterance], salt: str = "one") -> dict[str, str]:
    return {
        row.utterance_id: row.split
        for row in assign(rows, dev_percent=15, test_percent=15, salt=salt)
    }


_ROWS = st.lists(
    st.tuples(st.sampled_from(["c", "d"]), st.sampled_from(["", *"abcdefghij"])), max_size=30
)


@given(_ROWS, _ROWS)
def test_adding_data_moves_nobody_and_voices_stay_apart(
    old: list[tuple[str, str]], new: list[tuple[str, str]]
) -> None:
    def rows(pairs: list[tuple[str, str]], prefix: str) -> list[Utterance]:
        return [
            _utterance(f"{prefix}{place}", corpus=corpus, speaker=speaker)
            for place, (corpus, speaker) in enumerate(pairs)
        ]

    before = _assign(rows(old, "old"))
    after = _assign([*rows(new, "new"), *rows(old, "old")])
    assert before.items() <= after.items()
    assert not leaks(assign(rows(old, "old"), dev_percent=15, test_percent=15, salt="one"))


def test_a_given_split_wins_and_is_kept_for_the_speaker() -> None:
    given_test = _utterance("u1", speaker="a", split="test")
    rows = [given_test, _utterance("u2", speaker="a"), _utterance("u3", split="dev")]
    assert _assign(rows) == {"u1": "test", "u2": "test", "u3": "dev"}


def test_an_unknown_speaker_can_only_train() -> None:
    rows = [_utterance(f"u{index}") for index in range(200)]
    assert set(_assign(rows).values()) == {"train"}


def _dealt(rows: list[Utterance]) -> list[Utterance]:
    return assign(
        rows, dev_percent=20, test_percent=20, salt="one", unknown_speakers="by_utterance"
    )


def test_unknown_speakers_dealt_by_utterance_fill_every_split_and_adding_moves_nobody() -> None:
    rows = [_utterance(f"u{index}") for index in range(200)]
    before = {row.utterance_id: row.split for row in _dealt(rows)}
    assert set(before.values()) == {"train", "dev", "test"}
    more = [_utterance(f"v{index}") for index in range(100)]
    after = {row.utterance_id: row.split for row in _dealt([*more, *rows])}
    assert before.items() <= after.items()
    strangers = held_out_strangers(_dealt(rows))
    assert strangers == {
        split: sum(other == split for other in before.values()) for split in ("dev", "test")
    }
    assert sum(strangers.values()) > 0 == sum(held_out_strangers(assign_by_train(rows)).values())


def assign_by_train(rows: list[Utterance]) -> list[Utterance]:
    return assign(rows, dev_percent=20, test_percent=20, salt="one")


def test_dealing_by_utterance_keeps_copies_together_and_respects_consent_and_speakers() -> None:
    rows = [_utterance(f"u{index}") for index in range(100)]
    copies = [_utterance(f"w{index}", duplicate_of=f"u{index}") for index in range(100)]
    split = {row.utterance_id: row.split for row in _dealt([*rows, *copies])}
    assert all(split[f"w{index}"] == split[f"u{index}"] for index in range(100))
    silent = _dealt([_utterance(f"u{index}", consent=("train",)) for index in range(100)])
    assert {row.split for row in silent} == {"train"}
    ada = [_utterance(f"u{index}", speaker="ada") for index in range(100)]
    assert len({row.split for row in _dealt(ada)}) == 1


def test_the_note_says_strangers_only_where_they_are() -> None:
    rows = [_utterance("u1", speaker="a", split="train"), _utterance("u2", split="train")]
    rows += [
        _utterance("u3", speaker="b", split="test"),
        _utterance("u4", speaker="b", split="dev"),
    ]
    assert voices_note(rows) == "2 held-out recordings of 1 speakers who were never trained on"
    rows.append(_utterance("u5", split="test"))
    assert voices_note(rows).startswith("the speakers of 1 of 3 held-out recordings are unknown")


def test_shares_are_near_what_was_asked_and_the_salt_reshuffles() -> None:
    names = [f"speaker {index}" for index in range(3000)]
    splits = [speaker_split("c", name, dev_percent=10, test_percent=20, salt="s") for name in names]
    assert splits.count("dev") / 3000 == pytest.approx(0.1, abs=0.02)
    assert splits.count("test") / 3000 == pytest.approx(0.2, abs=0.03)
    others = [speaker_split("c", name, dev_percent=10, test_percent=20, salt="t") for name in names]
    assert splits != others


def test_growing_the_test_share_takes_nobody_out_of_test() -> None:
    names = [f"speaker {index}" for index in range(500)]
    small = {n for n in names if speaker_split("c", n, dev_percent=0, test_percent=5, salt="s")
             == "test"}  # fmt: skip
    large = {n for n in names if speaker_split("c", n, dev_percent=0, test_percent=9, salt="s")
             == "test"}  # fmt: skip
    assert small < large


def test_leaks_name_the_speaker_within_a_corpus() -> None:
    rows = [
        _utterance("u1", speaker="a", split="test"),
        _utterance("u2", speaker="a", split="train"),
        _utterance("u3", speaker="b", split="train"),
        _utterance("u4", speaker="b", split="test", corpus="another"),
        _utterance("u5", split="train"),
        _utterance("u6", split="dev"),
    ]
    assert leaks(rows) == [Leak(corpus="c", speaker="a", splits=("train", "test"))]


def test_an_empty_dev_split_is_reported_and_not_filled() -> None:
    rows = assign(
        [_utterance("u1", speaker="a", split="train")], dev_percent=50, test_percent=50, salt=""
    )
    assert [row.split for row in rows] == ["train"]
    assert empty_splits(rows) == ("dev", "test")


@pytest.mark.parametrize(("dev", "test"), [(-1, 10), (60, 50)])
def test_impossible_shares_are_refused(dev: float, test: float) -> None:
    with pytest.raises(ConfigError, match="split"):
        assign([], dev_percent=dev, test_percent=test, salt="")
