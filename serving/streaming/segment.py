"""The stretch of a stream between two final results: native samples to normalised features.

A segment takes nothing from what came before but its `SegmentStart`. So a stream that goes on after
a final result, and one that begins anew at that place in another process, give the same bits.
Samples enter in blocks of 20 ms counted from the segment's first sample: the resampler then gives
the same bits however the client cuts its bytes.
"""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from features.fbank import StreamingFbank
from features.norm import RunningNormaliser
from features.spec import FeatureSpec
from features.voice import VoiceActivity, VoiceState
from serving.front.front_end import StartState

Floats = NDArray[np.float32]
_BLOCK_MS = 20


@dataclass(frozen=True, kw_only=True)
class SegmentStart:
    """Where a segment begins and all that it takes over."""

    base: int  # its first sample, counted at the client's rate from the stream's start
    lead_frames: int  # encoder frames that only warm the caches: their words are final already
    mean: tuple[float, ...]  # of the normaliser so far, per mel bin ...
    mean_frames: int  # ... which is worth so many frames
    voice: VoiceState | None = None
    last_word_end_s: float | None = None  # of finals, while an UtteranceEnd may still follow


def first_start(prior: StartState) -> SegmentStart:
    """The beginning of a new stream."""
    return SegmentStart(
        base=0, lead_frames=0, mean=_exact(prior.mean_F), mean_frames=prior.prior_frames
    )


def _exact(mean_F: Floats) -> tuple[float, ...]:
    """As Python's floats, which hold every float32: comparable, and the same after JSON."""
    return tuple(np.asarray(mean_F, np.float32).tolist())


class Segment:
    """Samples in, features out; remembers enough of the past to say what a cut hands on."""

    def __init__(
        self, begin: SegmentStart, spec: FeatureSpec, prior: StartState, *, rate_hz: int
    ) -> None:
        self.begin = begin
        self.heard = begin.base  # the next sample it wants
        self.finished = False
        self.block = max(1, rate_hz * _BLOCK_MS // 1000)
        self.block_frames = max(1, round(_BLOCK_MS / spec.hop_ms))
        self.pending_TF: Floats = np.empty((0, spec.mel_bins), np.float32)
        self._resampler = (
            None
            if rate_hz == spec.sample_rate_hz
            else soxr.ResampleStream(rate_hz, spec.sample_rate_hz, 1, dtype="float32", quality="HQ")
        )
        mean_F = np.array(begin.mean, np.float64)
        self._fbank = StreamingFbank(spec)
        self._normaliser = RunningNormaliser(mean_F, prior.std_F, begin.mean_frames)
        self._level = float(prior.mean_F.mean(dtype=np.float64))
        self._hop_ms = spec.hop_ms
        self._voice = self._voice_from(begin.voice)
        self._frames = 0  # feature frames made
        # What follows begins at frame `_kept_from`; the sum and the state are those before it.
        self._kept_from = 0
        self._kept_TF: Floats = self.pending_TF
        self._voiced_T: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._sum_F = mean_F * begin.mean_frames
        self._kept_voice = self._voice.state

    def feed(self, samples_T: Floats) -> tuple[int, ...]:
        """Take whole blocks; gives the feature frames at which a voice started."""
        self.heard += len(samples_T)
        if self._resampler is None:
            return self._take(samples_T)
        blocks = (
            self._resampler.resample_chunk(samples_T[at : at + self.block], last=False)
            for at in range(0, len(samples_T), self.block)
        )
        return self._take(np.concatenate(list(blocks)))

    def finish(self, samples_T: Floats) -> tuple[int, ...]:
        """Take the last samples, less than a block; no more may follow."""
        self.finished = True
        self.heard += len(samples_T)
        if self._resampler is None:
            return self._take(samples_T)
        return self._take(self._resampler.resample_chunk(samples_T, last=True))

    def voiced(self, first: int, last: int, *, step: int) -> NDArray[np.bool_]:
        """Whether a voice is heard in encoder frames ``first`` to ``last``, of ``step`` each."""
        at = slice(first * step - self._kept_from, last * step - self._kept_from)
        return np.asarray(self._voiced_T[at].reshape(-1, step).any(axis=1), np.bool_)

    @property
    def quiet(self) -> bool:
        """Whether no voice is heard in the latest frame."""
        return self._voice.state.run == 0

    def forget(self, frame: int) -> None:
        """Let go of the features before ``frame``: no cut will lie there."""
        count = frame - self._kept_from
        if count <= 0:
            return
        self._sum_F, self._kept_voice = self._state_at(frame)
        self._kept_TF, self._voiced_T = self._kept_TF[count:].copy(), self._voiced_T[count:].copy()
        self._kept_from = frame

    def cut(self, frame: int, *, base: int, lead_frames: int) -> SegmentStart:
        """What a segment takes over that begins with feature frame ``frame`` of this one."""
        sum_F, voice = self._state_at(frame)
        count = self.begin.mean_frames + frame
        mean = _exact((sum_F / max(count, 1)).astype(np.float32))
        return SegmentStart(
            base=base, lead_frames=lead_frames, mean=mean, mean_frames=count, voice=voice
        )

    def _take(self, samples_T: Floats) -> tuple[int, ...]:
        x_TF = self._fbank.accept(np.asarray(samples_T, np.float32))
        voiced_T, onsets = self._voice.accept(x_TF)
        started = tuple(self._frames + onset for onset in onsets)
        self._frames += len(x_TF)
        self._kept_TF = np.concatenate([self._kept_TF, x_TF])
        self._voiced_T = np.concatenate([self._voiced_T, voiced_T])
        self.pending_TF = np.concatenate([self.pending_TF, self._normaliser.apply(x_TF)])
        return started

    def _state_at(self, frame: int) -> tuple[NDArray[np.float64], VoiceState]:
        before_TF = self._kept_TF[: frame - self._kept_from]
        voice = self._voice_from(self._kept_voice)
        voice.accept(before_TF)
        return self._sum_F + before_TF.sum(axis=0, dtype=np.float64), voice.state

    def _voice_from(self, state: VoiceState | None) -> VoiceActivity:
        return VoiceActivity(self._level, hop_ms=self._hop_ms, state=state)
