"""What a live stream has made final, as one transcript."""

from serving import assemble
from serving.prepared import normalisation
from serving.schema import Transcript
from serving.streaming.streams import LiveStream


def stream_transcript(live: LiveStream) -> Transcript:
    """Everything final so far, by the model that the stream began with."""
    words, parts = tuple(live.words), live.parts
    unusable = parts.unusable_hotwords
    return Transcript(
        text=assemble.joined(words),
        language=parts.language,
        duration_s=round(live.duration_s, 3),
        segments=assemble.segments(words),
        words=words,
        model=parts.facts,
        audio_digest=live.audio_digest,
        warnings=(
            *([f"unusable_hotwords:{unusable}"] if unusable else []),
            *(() if words else ("no_speech",)),
        ),
        normalisation=normalisation(parts.start),
        degradation=",".join(parts.degradation) or None,
    )
