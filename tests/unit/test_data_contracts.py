import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.contract_rules import COLUMNS, ContractConfig, table
from data.contracts import ValidationOutcome, validate
from data.manifest import Utterance

pytestmark = pytest.mark.slow  # the first import of Great Expectations takes seconds

_SECRET = "zanzibar quicksilver"
_CONFIG = ContractConfig()

Validate = Callable[..., ValidationOutcome]


def _utterance(number: int, **fields: Any) -> Utterance:
    base: dict[str, Any] = {
        "utterance_id": f"{number:032x}", "corpus": "c", "shard": "s.tar", "offset": 0,
        "length": 1, "text": _SECRET.title(), "normalised_text": _SECRET, "normaliser": "en-1",
        "speaker": f"voice-of-{number % 5}", "language": "en", "split": "train",
        "licence": "CC0-1.0", "consent": ("eval", "train"), "source": "a secret source",
        "source_digest": "sha256:0", "native_format": "wav/pcm_16", "native_rate_hz": 16000,
        "native_channels": 1, "duration_s": 2.0, "level_dbfs": -25.0, "peak_dbfs": -5.0,
        "clipping_ratio": 0.0, "dc_offset": 0.0, "snr_db": 20.0, "bandwidth_hz": 7000.0,
        "speech_ratio": 0.6,
    }  # fmt: skip
    return Utterance(**{**base, **fields})


_GOOD = [_utterance(number) for number in range(40)]


@pytest.fixture
def judge(tmp_path: Path) -> Validate:
    def run(rows: list[Utterance], **limits: Any) -> ValidationOutcome:
        return validate(rows, replace(_CONFIG, **limits), tmp_path / "docs")

    return run


def test_good_rows_are_let_in_and_the_pages_are_written(judge: Validate) -> None:
    outcome = judge(_GOOD)
    assert outcome.success and outcome.quarantined == {}
    assert outcome.message == "40 of 40 utterances are let in"
    assert outcome.statistics["admitted_s"] == 80.0
    assert outcome.statistics["admitted_by_split"]["train"] == 40
    page = (outcome.docs_dir / "index.html").read_text()
    assert "utterance contract" in page


def test_each_bad_row_is_quarantined_by_id_with_every_reason(judge: Validate) -> None:
    bad: dict[int, tuple[dict[str, Any], str]] = {
        100: ({"duration_s": 99.0}, "the duration is 99 s, not within 0.1 to 60.0 s"),
        101: ({"level_dbfs": -91.5}, "the level is -91.5 dBFS"),
        102: ({"clipping_ratio": 0.2}, "a share of 0.2 of the samples is clipped"),
        103: ({"dc_offset": -0.3}, "the mean sample is -0.3"),
        104: ({"snr_db": -9.0}, "the signal-to-noise ratio is -9 dB, below -5.0 dB"),
        105: ({"speech_ratio": 0.0}, "a share of 0 of the frames is speech"),
        106: ({"normalised_text": ""}, "the transcript is empty"),
        107: ({"normalised_text": "Größe!"}, "4 characters outside the alphabet"),
        108: ({"normalised_text": "a" * 200}, "100 characters a second, above 40.0"),
        109: ({"normalised_text": "a " * 30}, "15 words a second"),
        110: ({"normalised_text": "hm", "duration_s": 40.0}, "0.05 characters a second, below"),
        111: ({"licence": ""}, "no licence is named"),
        119: ({"licence": " Unknown"}, "no licence is named"),
        112: ({"consent": ("eval",)}, "the consent does not cover train"),
        113: ({"split": "validation", "speaker": ""}, "the split validation is none of"),
        114: ({"language": "fr"}, "the language fr is none of en"),
        115: ({"snr_db": math.nan}, "1 of its measurements are not finite numbers"),
        116: ({"level_dbfs": math.inf}, "1 of its measurements are not finite numbers"),
        117: (
            {"split": "dev", "speaker": "", "duplicate_of": f"{3:032x}"},
            f"it repeats {3:032x} of split train",
        ),
        118: (
            {"split": "", "speaker": "someone", "consent": ("train",)},
            "the consent does not cover eval",
        ),
    }
    rows = [*_GOOD, *(_utterance(number, **fields) for number, (fields, _) in bad.items())]
    outcome = judge(rows, max_quarantined_share=0.5)
    assert outcome.success
    assert set(outcome.quarantined) == {f"{number:032x}" for number in bad}
    for number, (_, reason) in bad.items():
        assert any(reason in said for said in outcome.quarantined[f"{number:032x}"]), reason
    assert outcome.statistics["quarantined"] == len(bad)
    assert outcome.statistics["refused_by_rule"]["licence"] == 2


def test_a_row_can_have_several_reasons(judge: Validate) -> None:
    outcome = judge([*_GOOD, _utterance(99, licence="", level_dbfs=-99.0, speech_ratio=0.0)])
    assert len(outcome.quarantined[f"{99:032x}"]) == 3


def test_harmless_cases_pass(judge: Validate) -> None:
    outcome = judge(
        [
            *_GOOD,
            _utterance(50, split="", speaker="", consent=("train",)),
            _utterance(51, duplicate_of=f"{1:032x}"),
            _utterance(52, split="dev", speaker="voice-of-1", corpus="another corpus"),
        ]
    )
    assert outcome.success and outcome.quarantined == {}
    assert outcome.statistics["near_repeats"] == 1


def test_a_speaker_in_two_splits_stops_the_batch_by_name(judge: Validate) -> None:
    outcome = judge([*_GOOD, _utterance(60, split="test", speaker="voice-of-3")])
    assert not outcome.success
    assert "voice-of-3 of c (train, test)" in outcome.message
    assert "voice-of-2" not in outcome.message
    accepted = judge(
        [*_GOOD, _utterance(60, split="test", speaker="voice-of-3")], speaker_overlap_in=("c",)
    )
    assert accepted.success and accepted.statistics["speakers_in_several_splits"] == 1


def test_a_repeated_id_stops_the_batch(judge: Validate) -> None:
    outcome = judge([*_GOOD, _utterance(7)])
    assert not outcome.success and f"{7:032x} is listed more than once" in outcome.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"duration_s": "2.0"}, "column duration_s holds something that is no float64"),
        ({"language": 7}, "column language holds something that is no str"),
        ({"split": None}, "column split lacks a value"),
    ],
)
def test_a_column_of_another_type_stops_the_batch(
    judge: Validate, fields: dict[str, Any], said: str
) -> None:
    outcome = judge([*_GOOD, _utterance(61, **fields)])
    assert not outcome.success and said in outcome.message


def test_too_large_a_share_of_refused_rows_stops_the_batch(judge: Validate) -> None:
    rows = [*_GOOD, *(_utterance(number, level_dbfs=-80.0) for number in range(70, 80))]
    outcome = judge(rows)
    assert not outcome.success
    assert "10 of 50 utterances (20.0%)" in outcome.message and "level (10)" in outcome.message
    assert judge(rows, max_quarantined_share=0.2).success


def test_a_corpus_of_unknown_licence_is_stopped_with_the_mend(judge: Validate) -> None:
    rows = [_utterance(number, licence="unknown", consent=()) for number in range(5)]
    outcome = judge(rows)
    assert not outcome.success and outcome.statistics["licence_unknown"] == 5
    assert "licence (5), consent (5)" in outcome.message and "--licence" in outcome.mend
    named = [replace(row, licence="CC-BY-4.0", consent=("eval", "train")) for row in rows]
    assert judge(named).success and not judge(named).mend


def test_no_utterances_is_a_stop(judge: Validate) -> None:
    assert not judge([]).success


def test_the_pages_hold_no_transcript_speaker_or_source(judge: Validate) -> None:
    rows = [
        *_GOOD,
        _utterance(80, duration_s=99.0),
        _utterance(81, normalised_text=f"{_SECRET} ß"),
        _utterance(82, normalised_text=_SECRET * 50),
        _utterance(83, split="test", speaker="voice-of-3"),
    ]
    outcome = judge(rows)
    pages = [path for path in outcome.docs_dir.rglob("*.html")]
    assert len(pages) >= 3
    for page in pages:
        content = page.read_text().lower()
        for private in (*_SECRET.split(), "voice-of", "secret source"):
            assert private not in content, (page, private)


def test_the_judged_table_holds_no_content() -> None:
    columns = table(_GOOD, _CONFIG)
    assert tuple(columns) == COLUMNS
    assert not any(word in str(columns) for word in (*_SECRET.split(), "voice-of", "secret source"))


def test_pages_are_replaced_and_strangers_in_the_folder_kept(judge: Validate) -> None:
    docs_dir = judge(_GOOD).docs_dir
    (docs_dir / "notes.txt").write_text("mine")
    before = {path.relative_to(docs_dir) for path in docs_dir.rglob("*.html")}
    judge(_GOOD)
    assert {path.relative_to(docs_dir) for path in docs_dir.rglob("*.html")} == before
    assert (docs_dir / "notes.txt").read_text() == "mine"
