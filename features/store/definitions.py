"""What Feast serves: entities, views and versioned services.

Feast imports every module below its repository's folder, so this one lies alone; it is copied
beside the data and must import nothing of Auricle. A service is never edited, it gets a successor.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Bytes, Float64, Int64, String

_FOREVER = timedelta(0)

utterance = Entity(
    name="utterance",
    join_keys=["utterance_id"],
    value_type=ValueType.STRING,
    description="One recording, named by the hash of its samples.",
)
speaker = Entity(
    name="speaker",
    join_keys=["speaker"],
    value_type=ValueType.STRING,
    description="Pseudonym of who speaks.",
)
channel = Entity(
    name="channel",
    join_keys=["channel"],
    value_type=ValueType.STRING,
    description="Kind of channel: narrow (telephone) or wide.",
)

utterance_features = FeatureView(
    name="utterance_features",
    entities=[utterance],
    ttl=_FOREVER,
    online=False,
    source=FileSource(
        name="utterances", path="utterances.parquet", timestamp_field="event_timestamp"
    ),
    schema=[
        Field(name="corpus", dtype=String),
        Field(name="split", dtype=String),
        Field(name="duration_s", dtype=Float64),
        Field(name="level_dbfs", dtype=Float64),
        Field(name="snr_db", dtype=Float64),
        Field(name="speech_ratio", dtype=Float64),
        Field(name="bandwidth_hz", dtype=Float64),
        Field(name="clipping_ratio", dtype=Float64),
        Field(name="partition", dtype=Int64, description="Partition of the feature archive."),
        Field(name="start_frame", dtype=Int64, description="First frame in the partition."),
        Field(name="frames", dtype=Int64),
        Field(name="fingerprint", dtype=String, description="Of the FeatureSpec."),
    ],
    description="Profile of each recording, and where the archive keeps its log-mel features.",
)

speaker_priors = FeatureView(
    name="speaker_priors",
    entities=[speaker, channel],
    ttl=_FOREVER,
    online=True,
    source=FileSource(
        name="speaker_priors", path="speaker_priors.parquet", timestamp_field="event_timestamp"
    ),
    schema=[
        Field(name="prior_value", dtype=Bytes, description="Frames (int64) and mean (float32)."),
        Field(name="prior_frames", dtype=Int64),
        Field(name="prior_utterances", dtype=Int64),
        Field(name="prior_fingerprint", dtype=String, description="Of the FeatureSpec."),
    ],
    description="Mean log-mel of a speaker on a kind of channel, over all that was heard before.",
)

asr_training_v1 = FeatureService(
    name="asr_training_v1",
    features=[utterance_features, speaker_priors],
    description="Training: where the features lie, and the prior at that moment.",
)
asr_serving_priors_v1 = FeatureService(
    name="asr_serving_priors_v1",
    features=[speaker_priors],
    description="Serving: the newest prior of a speaker.",
)
