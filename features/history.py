"""What the feature store is told: utterances and speakers' priors along one logical clock.

Recordings of a corpus seldom say when they were made. So time is an order: the recordings sorted
by their content hash, one second apart from a fixed epoch, the same on every machine. A prior that
was taken after an utterance is stamped half a second later, and a point-in-time join at the
utterance's own second can therefore only find what the same speaker said *before*.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from data.manifest import Utterance
from features.archive import FeatureArchive
from features.priors import Prior, channel_of

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_TICK = timedelta(seconds=1)
_AFTER = timedelta(milliseconds=500)
_EVERY_UTTERANCE_UP_TO = 8


@dataclass(frozen=True, kw_only=True)
class UtteranceRow:
    """One row of the feature view ``utterance_features``; also what the training frame asks for."""

    utterance_id: str
    speaker: str
    channel: str
    event_timestamp: datetime
    corpus: str
    split: str
    duration_s: float
    level_dbfs: float
    snr_db: float
    speech_ratio: float
    bandwidth_hz: float
    clipping_ratio: float
    partition: int  # where the archive keeps the features
    start_frame: int
    frames: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class PriorRow:
    """One row of the feature view ``speaker_priors``: a speaker's mean up to a moment."""

    speaker: str
    channel: str
    event_timestamp: datetime
    prior_value: bytes  # as `Prior.to_bytes` writes it
    prior_frames: int
    prior_utterances: int
    prior_fingerprint: str


def utterance_rows(utterances: Iterable[Utterance], archive: FeatureArchive) -> list[UtteranceRow]:
    """Rows in the order of the logical clock."""
    fingerprint = archive.spec.fingerprint()
    ordered = sorted(utterances, key=lambda utterance: utterance.utterance_id)
    return [
        UtteranceRow(
            utterance_id=utterance.utterance_id,
            speaker=utterance.speaker,
            channel=channel_of(utterance.native_rate_hz),
            event_timestamp=EPOCH + tick * _TICK,
            corpus=utterance.corpus,
            split=utterance.split,
            duration_s=utterance.duration_s,
            level_dbfs=utterance.level_dbfs,
            snr_db=utterance.snr_db,
            speech_ratio=utterance.speech_ratio,
            bandwidth_hz=utterance.bandwidth_hz,
            clipping_ratio=utterance.clipping_ratio,
            partition=row.partition,
            start_frame=row.start_frame,
            frames=row.frames,
            fingerprint=fingerprint,
        )
        for tick, utterance in enumerate(ordered)
        for row in [archive.row(utterance.utterance_id)]
    ]


def prior_rows(rows: Sequence[UtteranceRow], archive: FeatureArchive) -> list[PriorRow]:
    """The history of every known speaker's mean, each row over all that was heard so far.

    A mean settles soon, so rows get rarer: after each of the first eight utterances, then at 12,
    16, 24, 32, ... and after the last. A point-in-time join multiplies a speaker's utterances
    with its rows; with a row per utterance a reader of 13,000 sentences would make 170 million.
    """
    heard: dict[tuple[str, str], list[UtteranceRow]] = {}
    for row in sorted(rows, key=lambda row: row.event_timestamp):
        if row.speaker and row.frames:
            heard.setdefault((row.speaker, row.channel), []).append(row)
    history: list[PriorRow] = []
    for (speaker, channel), own in sorted(heard.items()):
        sum_F = np.zeros(archive.spec.mel_bins, np.float64)
        frames = 0
        for count, row in enumerate(own, start=1):
            sum_F += archive.get(row.utterance_id).sum(axis=0, dtype=np.float64)
            frames += row.frames
            if count == len(own) or _is_kept(count):
                prior = Prior(mean_F=(sum_F / frames).astype(np.float32), frames=frames)
                history.append(
                    PriorRow(
                        speaker=speaker,
                        channel=channel,
                        event_timestamp=row.event_timestamp + _AFTER,
                        prior_value=prior.to_bytes(),
                        prior_frames=frames,
                        prior_utterances=count,
                        prior_fingerprint=row.fingerprint,
                    )
                )
    return history


def _is_kept(count: int) -> bool:
    """Whether a row is kept after this many utterances: 1..8, 12, 16, 24, 32, 48, ..."""
    power = 1 << (count.bit_length() - 1)
    return count <= _EVERY_UTTERANCE_UP_TO or count in (power, power + power // 2)
