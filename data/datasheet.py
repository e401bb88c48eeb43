"""The datasheet of a corpus: what is in it, counted from its manifest."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.manifest import MANIFEST_SCHEMA_VERSION, Utterance
from data.profile import PROFILE_VERSION

DATASHEET_SCHEMA_VERSION = 1
_PERCENTILES = (5, 50, 95)
_MEASURES = ("duration_s", "level_dbfs", "snr_db", "bandwidth_hz", "speech_ratio")


def datasheet(name: str, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Counts, hours and percentiles; equal manifests give equal datasheets."""
    return {
        "datasheet_schema": DATASHEET_SCHEMA_VERSION,
        "manifest_schema": MANIFEST_SCHEMA_VERSION,
        "corpus": name,
        "utterances": len(utterances),
        "audio_s": round(sum(row.duration_s for row in utterances), 3),
        "words": sum(len(row.normalised_text.split()) for row in utterances),
        "vocabulary": len({word for row in utterances for word in row.normalised_text.split()}),
        "speakers": len({row.speaker for row in utterances if row.speaker}),
        "utterances_without_speaker": sum(not row.speaker for row in utterances),
        "near_duplicates": sum(bool(row.duplicate_of) for row in utterances),
        "clipped_utterances": sum(row.clipping_ratio > 0 for row in utterances),
        "normalisers": sorted({row.normaliser for row in utterances}),
        "profile": PROFILE_VERSION,
        "consent": _counts(purpose for row in utterances for purpose in row.consent),
        "shards": sorted({row.shard for row in utterances}),
        **{
            name: _counts(str(getattr(row, field)) for row in utterances)
            for name, field in (
                ("splits", "split"),
                ("languages", "language"),
                ("licences", "licence"),
                ("sources", "source"),
                ("native_formats", "native_format"),
                ("native_rates_hz", "native_rate_hz"),
                ("native_channels", "native_channels"),
            )
        },
        "percentiles": {measure: _percentiles(utterances, measure) for measure in _MEASURES},
    }


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _percentiles(utterances: Sequence[Utterance], measure: str) -> dict[str, float]:
    values = [getattr(row, measure) for row in utterances]
    found = np.percentile(values, _PERCENTILES)
    return {f"p{p}": round(float(v), 3) for p, v in zip(_PERCENTILES, found, strict=True)}
