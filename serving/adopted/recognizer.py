"""The recogniser of an adopted model: recordings in, Transcripts of the one schema out.

Like Auricle's own it answers `recognize`, and shows its steps (`prepare`, then window by window,
then `transcript`), so that the service can batch the windows of many requests between them.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from data.audio_errors import AudioError
from data.blocks import Recording
from serving.adopted.mel import log_mel
from serving.adopted.whisper import WhisperEngine
from serving.adopted.windows import Passage, Said
from serving.metrics import StageSeconds
from serving.prepared import timings_of
from serving.recognizer import AudioRequest, Recognition, content_digest, open_request
from serving.schema import ModelFacts, Segment, Transcript, Word

_SILENCE_PEAK = 1e-3  # -60 dBFS: nothing was recorded
_DIGITS = 3
LONGEST_S = 3600.0  # its features take 115 MB


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a request wants its recording read."""

    prompt: str = ""  # text that went before
    languages: tuple[str, ...] = ()  # one is taken for granted; none of several: the model chooses
    words: bool = False  # whether each word's time is wanted


PLAIN = Wish()


@dataclass(kw_only=True)
class PreparedPassage:
    """A recording on its way."""

    duration_s: float
    audio_digest: str
    warnings: list[str]
    passage: Passage
    features_s: float
    queue_s: float = 0.0
    model_s: float = 0.0
    calls_s: float = 0.0  # whole model calls that its windows were part of
    waited_s: float = 0.0  # all that was no step of its own
    began_s: float = field(default_factory=time.perf_counter)

    @property
    def work_s(self) -> float:
        """What the recording itself took."""
        return self.features_s + self.model_s

    @property
    def steps_s(self) -> float:
        """Wall time of its steps, each call counted whole."""
        return self.features_s + self.calls_s

    @property
    def seconds(self) -> StageSeconds:
        """By stage; the decoder is part of the model."""
        return StageSeconds(queue=self.waited_s, features=self.features_s, model=self.model_s)


class WhisperRecognizer:
    """A loaded model under the name that it is served by."""

    def __init__(
        self, engine: WhisperEngine, name: str, *, max_duration_s: float = LONGEST_S
    ) -> None:
        self.engine = engine
        digest = engine.folder.digest
        fitted = "-fitted" if engine.options.fitted else ""
        self.facts = ModelFacts(
            name=name,
            version=digest.removeprefix("sha256:")[:12],
            variant=f"{engine.options.compute_type}{fitted}",
            bundle_digest=digest,
            licence=engine.folder.licence,
        )
        self._max_duration_s = min(max_duration_s, LONGEST_S)

    def prepare(self, request: AudioRequest, wish: Wish = PLAIN) -> PreparedPassage:
        """Decode the audio and compute its features."""
        began = time.perf_counter()
        audio = open_request(request, max_duration_s=self._max_duration_s)
        only = wish.languages[0] if len(wish.languages) == 1 else None
        return PreparedPassage(
            duration_s=audio.duration_s,
            audio_digest=content_digest(request.content),
            warnings=["truncated_audio"] if audio.truncated else [],
            passage=Passage(
                x_MT=self._features(audio),
                prompt=self.engine.prompt(wish.prompt),
                language=only,
                among=wish.languages,
                words=wish.words,
            ),
            features_s=time.perf_counter() - began,
        )

    def transcript(
        self, prepared: PreparedPassage, *, network_s: float = 0.0, total_s: float = 0.0
    ) -> Transcript:
        """The answer, once every window is read."""
        passage = prepared.passage
        segments = tuple(
            self._segment(index, said, prepared.duration_s)
            for index, said in enumerate(passage.said)
        )
        languages = self.engine.languages
        return Transcript(
            text=" ".join(segment.text for segment in segments),
            language=passage.language or (languages[0] if len(languages) == 1 else "und"),
            duration_s=round(prepared.duration_s, _DIGITS),
            segments=segments,
            words=tuple(word for segment in segments for word in segment.words),
            model=self.facts,
            audio_digest=prepared.audio_digest,
            timings_ms=timings_of(prepared.seconds, network_s=network_s, total_s=total_s),
            warnings=(*prepared.warnings, *(() if segments else ("no_speech",))),
        )

    def recognize(self, batch: Sequence[AudioRequest], wish: Wish = PLAIN) -> list[Recognition]:
        """One answer per request, in order; a bad recording never spoils its neighbours."""
        return [self._recognition(request, wish) for request in batch]

    def _recognition(self, request: AudioRequest, wish: Wish) -> Recognition:
        began = time.perf_counter()
        try:
            prepared = self.prepare(request, wish)
            while (window := prepared.passage.next_window()) is not None:
                started = time.perf_counter()
                prepared.passage.accept(*self.engine.read([window]))
                prepared.model_s += time.perf_counter() - started
        except AudioError as error:
            return Recognition(error=error)
        total_s = time.perf_counter() - began
        return Recognition(transcript=self.transcript(prepared, total_s=total_s))

    def _features(self, audio: Recording) -> np.ndarray:
        shape = self.engine.mel
        if audio.peak < _SILENCE_PEAK:
            return np.empty((len(shape.filters_MF), 0), np.float32)
        return log_mel((block_TC[:, 0] for block_TC in audio.blocks_16k()), shape)

    def _segment(self, index: int, said: Said, duration_s: float) -> Segment:
        """Times of the recording, in order and inside it."""

        def place(seconds: float) -> float:
            return round(min(max(0.0, said.offset_s + seconds), duration_s), _DIGITS)

        part = said.stretch
        start, end = place(part.start_s), place(part.end_s)
        return Segment(
            id=index,
            start=start,
            end=max(start, end),
            text=self.engine.text(part.tokens).strip(),
            confidence=round(math.exp(min(0.0, said.avg_logprob)), 4),
            words=tuple(
                Word(
                    word=word.text.strip(),
                    start=place(word.start_s),
                    end=max(place(word.start_s), place(word.end_s)),
                    confidence=round(min(1.0, max(0.0, word.probability)), 4),
                )
                for word in part.words
            ),
            avg_logprob=round(min(0.0, said.avg_logprob), 4),
            no_speech_prob=round(min(1.0, max(0.0, said.no_speech_prob)), 6),
        )
