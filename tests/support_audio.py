"""Sounds in any container, made by libsndfile and FFmpeg."""

import io
from typing import Any

import av
import numpy as np
import soundfile


def tone(seconds: float = 1.0, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    time_T = np.arange(round(seconds * rate_hz)) / rate_hz
    wave_T = 0.4 * np.sin(2 * np.pi * 440 * time_T)
    return np.stack([wave_T / (1 + channel) for channel in range(channels)], axis=1).astype("f4")


def written(samples: np.ndarray, rate_hz: int = 16_000, kind: str = "WAV/PCM_16") -> bytes:
    sink = io.BytesIO()
    container, subtype = kind.split("/")
    soundfile.write(sink, samples, rate_hz, format=container, subtype=subtype)
    return sink.getvalue()


def encoded(samples_T: np.ndarray, container: str, codec: str, rate_hz: int = 48_000) -> bytes:
    """Through FFmpeg, for what libsndfile cannot write."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as media:
        track: Any = media.add_stream(codec, rate=rate_hz, layout="mono")
        source = av.AudioFrame.from_ndarray(
            (samples_T[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        source.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=track.codec_context.format, layout="mono", rate=rate_hz
        )
        fifo = av.AudioFifo()
        for frame in [*resampler.resample(source), *resampler.resample(None)]:
            frame.pts = None
            fifo.write(frame)
        for frame in fifo.read_many(track.codec_context.frame_size or 1024, partial=True):
            media.mux(track.encode(frame))
        media.mux(track.encode(None))
    return sink.getvalue()
