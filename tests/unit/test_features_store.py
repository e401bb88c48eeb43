"""Feast for real: apply, materialize, point-in-time join, online store, projection."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features import store_client
from features.history import EPOCH, PriorRow, UtteranceRow, prior_rows
from features.priors import Prior, PriorKey, PriorView
from features.spec import FeatureSpec
from features.training_rows import TrainingRow, read_rows, write_rows
from governance.errors import AuricleError, ConfigError

SPEC = FeatureSpec()
PRINT = SPEC.fingerprint()


class Features:
    """The part of an archive that history reads: ten frames per utterance, all of its own value."""

    spec = SPEC

    def get(self, utterance_id: str) -> NDArray[np.float16]:
        return np.full((10, SPEC.mel_bins), own_value(utterance_id), np.float16)


def own_value(utterance_id: str) -> float:
    return int(utterance_id[:4], 16) % 1000 / 50


def make_rows(count: int, speakers: Sequence[str]) -> list[UtteranceRow]:
    names = sorted(hashlib.md5(str(n).encode()).hexdigest() for n in range(count))
    return [
        UtteranceRow(
            utterance_id=name,
            speaker=speakers[tick % len(speakers)],
            channel="narrow" if tick % 7 == 0 else "wide",
            event_timestamp=EPOCH + timedelta(seconds=tick),
            corpus="c",
            split="train",
            duration_s=0.115,
            level_dbfs=-20.0 - tick,
            snr_db=15.0,
            speech_ratio=0.5,
            bandwidth_hz=8000.0,
            clipping_ratio=0.0,
            partition=tick // 20,
            start_frame=10 * (tick % 20),
            frames=10,
            fingerprint=PRINT,
        )
        for tick, name in enumerate(names)
    ]


ROWS = make_rows(61, ["", "ann", "bob", "cai", "dot"])
ROWS = [replace(row, speaker="once") if tick == 30 else row for tick, row in enumerate(ROWS)]
PRIORS = prior_rows(ROWS, Features())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feast with space")
    report = store_client.publish(ROWS, PRIORS, folder)
    assert report.utterances == 61
    assert report.views == ("speaker_priors", "utterance_features")
    assert report.services == ("asr_serving_priors_v1", "asr_training_v1")
    return folder


@pytest.fixture(scope="module")
def frame(data_dir: Path) -> list[TrainingRow]:
    shuffled = [ROWS[i] for i in np.random.default_rng(0).permutation(len(ROWS))]
    frame = store_client.training_frame(shuffled, "asr_training_v1", data_dir=data_dir)
    assert [row.utterance_id for row in frame] == [row.utterance_id for row in shuffled]
    return frame


def earlier(row: UtteranceRow) -> list[UtteranceRow]:
    return [
        other
        for other in ROWS
        if (other.speaker, other.channel) == (row.speaker, row.channel)
        and other.event_timestamp < row.event_timestamp
    ]


def test_every_prior_is_of_the_same_speakers_earlier_utterances_only(
    frame: list[TrainingRow],
) -> None:
    asked = {row.utterance_id: row for row in ROWS}
    warm = 0
    for row in frame:
        before = earlier(asked[row.utterance_id])
        if not row.speaker or not before:
            assert row.prior is None
            assert row.prior_frames == 0
            continue
        warm += 1
        assert row.prior is not None
        assert 1 <= row.prior_utterances <= len(before)
        heard = before[: row.prior_utterances]
        expected = np.mean([float(np.float16(own_value(o.utterance_id))) for o in heard])
        np.testing.assert_allclose(row.prior.mean_F, expected, rtol=1e-4)
        assert row.prior_frames == row.prior.frames == 10 * len(heard)
    assert warm > 30


def test_an_utterance_never_leaks_into_its_own_prior(tmp_path: Path) -> None:
    poisoned = [row for row in ROWS if (row.speaker, row.channel) == ("ann", "wide")][-1]

    class Poisoned(Features):
        def get(self, utterance_id: str) -> NDArray[np.float16]:
            own = super().get(utterance_id)
            return own + np.float16(9999) if utterance_id == poisoned.utterance_id else own

    history = prior_rows(ROWS, Poisoned())  # type: ignore[arg-type]
    assert any(Prior.from_bytes(row.prior_value).mean_F.max() > 500 for row in history)
    store_client.publish(ROWS, history, tmp_path)
    frame = store_client.training_frame(ROWS, "asr_training_v1", data_dir=tmp_path)
    for row in frame:
        assert row.prior is None or row.prior.mean_F.max() < 100


def test_the_frame_carries_the_profile_and_the_place_in_the_archive(
    frame: list[TrainingRow],
) -> None:
    asked = {row.utterance_id: row for row in ROWS}
    for row in frame:
        source = asked[row.utterance_id]
        for name in ("speaker", "channel", "corpus", "split", "fingerprint"):
            assert getattr(row, name) == getattr(source, name)
        for name in ("partition", "start_frame", "frames", "level_dbfs", "snr_db", "duration_s"):
            assert getattr(row, name) == getattr(source, name)
            assert type(getattr(row, name)) is type(getattr(source, name))


def test_those_whom_the_file_store_drops_are_kept_cold(frame: list[TrainingRow]) -> None:
    asked = {row.utterance_id: row for row in ROWS}
    firsts = [row for row in frame if row.speaker and not earlier(asked[row.utterance_id])]
    assert (
        len(firsts) >= 5
    )  # all of their speaker's rows are later, which Feast answers by dropping
    assert all(row.prior is None and row.frames == 10 for row in firsts)


def test_large_frames_are_joined_in_chunks(
    data_dir: Path, frame: list[TrainingRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_client, "_JOIN_CHUNK_ROWS", 25)
    again = store_client.training_frame(ROWS, "asr_training_v1", data_dir=data_dir)
    assert sorted(again, key=lambda row: row.utterance_id) == sorted(
        frame, key=lambda row: row.utterance_id
    )


def test_an_utterance_that_was_never_published_is_named(data_dir: Path) -> None:
    stranger = replace(ROWS[3], utterance_id="f" * 32)
    with pytest.raises(AuricleError, match=r"f{32}: the feature store does not know"):
        store_client.training_frame([ROWS[0], stranger], "asr_training_v1", data_dir=data_dir)


def test_online_priors_are_the_newest(data_dir: Path) -> None:
    speakers = [("ann", "wide"), ("bob", "narrow"), ("nobody", "wide"), ("ann", "wide")]
    found = store_client.online_priors(speakers, data_dir=data_dir)
    assert list(found) == [("ann", "wide"), ("bob", "narrow"), ("nobody", "wide")]
    assert found["nobody", "wide"] is None
    for speaker, channel in (("ann", "wide"), ("bob", "narrow")):
        newest = max(
            (row for row in PRIORS if (row.speaker, row.channel) == (speaker, channel)),
            key=lambda row: row.event_timestamp,
        )
        online = found[speaker, channel]
        assert online is not None
        assert online.value == newest.prior_value
        assert online.fingerprint == PRINT
    assert store_client.online_priors([], data_dir=data_dir) == {}
    with pytest.raises(Exception, match="another_service"):
        store_client.online_priors(speakers, "another_service", data_dir=data_dir)


def test_the_projected_view_says_what_the_online_store_says(data_dir: Path, tmp_path: Path) -> None:
    from feast import FeatureStore

    speakers = sorted({(row.speaker, row.channel) for row in ROWS} | {("nobody", "wide")})
    path = tmp_path / "priors.db"
    first = store_client.project_view(speakers, path, data_dir=data_dir, tenant="t")
    assert first == store_client.project_view(speakers[::-1], path, data_dir=data_dir, tenant="t")
    answer = (
        FeatureStore(repo_path=str(data_dir))
        .get_online_features(
            features=["speaker_priors:prior_value"],
            entity_rows=[{"speaker": speaker, "channel": channel} for speaker, channel in speakers],
        )
        .to_dict()
    )
    view, known = PriorView(path), 0
    for speaker, channel, value in zip(
        answer["speaker"], answer["channel"], answer["prior_value"], strict=True
    ):
        key = PriorKey(tenant="t", speaker=speaker, channel=channel, fingerprint=PRINT)
        prior = view.lookup(key, deadline_ms=10_000)
        assert (prior.to_bytes() if prior else None) == value
        known += prior is not None
    assert known == len({(row.speaker, row.channel) for row in PRIORS})


def test_publishing_again_forgets_whoever_was_withdrawn(tmp_path: Path) -> None:
    store_client.publish(ROWS, PRIORS, tmp_path)
    kept = [row for row in PRIORS if row.speaker != "ann"]
    report = store_client.publish(ROWS, kept, tmp_path)
    found = store_client.online_priors([("ann", "wide"), ("bob", "wide")], data_dir=tmp_path)
    assert found["ann", "wide"] is None
    assert found["bob", "wide"] is not None
    assert report.speakers == len({(row.speaker, row.channel) for row in kept})


def test_priors_of_another_front_end_are_cold(tmp_path: Path) -> None:
    foreign = [replace(row, prior_fingerprint="fs1-other") for row in PRIORS]
    store_client.publish(ROWS, foreign, tmp_path)
    frame = store_client.training_frame(ROWS, "asr_training_v1", data_dir=tmp_path)
    assert all(row.prior is None for row in frame)


def test_a_published_folder_may_be_moved(data_dir: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "elsewhere"
    shutil.copytree(data_dir, moved)
    rows = store_client.training_frame(ROWS[:5], "asr_training_v1", data_dir=moved)
    assert len(rows) == 5


def test_the_frame_survives_its_file(frame: list[TrainingRow], tmp_path: Path) -> None:
    write_rows(tmp_path / "frame.parquet", frame)
    assert read_rows(tmp_path / "frame.parquet") == frame
    (tmp_path / "frame.parquet").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"frame\.parquet"):
        read_rows(tmp_path / "frame.parquet")


def test_nothing_published_is_an_error_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing was published here.*Mend"):
        store_client.training_frame(ROWS, "asr_training_v1", data_dir=tmp_path)
    with pytest.raises(AuricleError, match="nothing to publish"):
        store_client.publish([], [], tmp_path)


def test_history_thins_out_for_those_who_speak_much() -> None:
    rows = make_rows(3000, ["ann"])
    history = prior_rows([replace(row, channel="wide") for row in rows], Features())  # type: ignore[arg-type]
    counts = [row.prior_utterances for row in history]
    assert counts[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32]
    assert counts[-1] == 3000
    assert len(counts) < 30
    assert all(_stamped_after_its_last_utterance(row, rows) for row in history)


def _stamped_after_its_last_utterance(prior: PriorRow, rows: list[UtteranceRow]) -> bool:
    last = rows[prior.prior_utterances - 1].event_timestamp
    return last < prior.event_timestamp < last + timedelta(seconds=1)
