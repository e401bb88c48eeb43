"""Recordings through a bundle in this process, exactly as the service runs it."""

from dataclasses import replace
from pathlib import Path

from features.decode import DecoderConfig
from serving.loading import load_recognizer
from serving.recognizer import AudioRequest, AuricleRecognizer
from serving.settings import ServeSettings
from serving.streaming.streams import StreamRequest


def open_recognizer(bundle: Path, *, greedy: bool = False, version: str = "") -> AuricleRecognizer:
    """Verify and warm a bundle; ``greedy`` leaves its language model and lexicon aside.

    ``version`` is the registry's number, where it has one: transcripts name it like the service's.
    """
    settings = ServeSettings(bundle_dir=bundle, max_streams=2, model_version=version)
    recognizer = load_recognizer(settings)
    if greedy:
        recognizer.config = replace(recognizer.config, decoder=DecoderConfig(kind="greedy"))
    return recognizer


def text_of(recognizer: AuricleRecognizer, audio: bytes | Path, *, name: str) -> str:
    """Transcript of one recording; an unreadable one raises."""
    (answer,) = recognizer.recognize([AudioRequest(content=audio, name=name)])
    if answer.transcript is None:
        assert answer.error is not None
        raise answer.error
    return answer.transcript.text


def stream_text_of(recognizer: AuricleRecognizer, audio: bytes | Path, *, name: str) -> str:
    """Transcript of one recording sent as a live stream of 16 kHz PCM."""
    from data.audio import load_mono_16k, to_pcm16

    samples_T = load_mono_16k(audio, name=name)
    pcm = to_pcm16(samples_T[:, None]).astype("<i2").tobytes()
    stream = recognizer.open_stream(StreamRequest())
    events = [*stream.accept(pcm), *stream.finalize()]
    return " ".join(event.text for event in events if event.is_final and event.text)
