"""A recording on its way through the recogniser, and what its transcript says about the way."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from features.hotwords import HotwordGraph
from serving.evidence import HeardWord
from serving.file_options import NOTHING_SPECIAL, FileOptions
from serving.front.cutter import Piece
from serving.front.front_end import StartState
from serving.metrics import StageSeconds
from serving.schema import Normalisation, Timings


@dataclass(kw_only=True)
class Prepared:
    """A recording on its way: decoded audio, pieces still to be made, words so far."""

    duration_s: float
    audio_digest: str
    normalisation: Normalisation
    warnings: list[str]
    pieces: Iterator[Piece]
    options: FileOptions = NOTHING_SPECIAL
    hotwords: HotwordGraph | None = None
    degradation: tuple[str, ...] = ()  # what is given up for this answer
    heard: list[HeardWord] = field(default_factory=list)
    seconds: StageSeconds = field(default_factory=StageSeconds)  # summed over pieces
    calls_s: float = 0.0  # whole model calls that the pieces were part of

    @property
    def work_s(self) -> float:
        """What the recording itself took of threads and model."""
        return self.seconds.features + self.seconds.model + self.seconds.decoding

    @property
    def steps_s(self) -> float:
        """Wall time of its steps, each model call counted whole."""
        return self.seconds.features + self.calls_s + self.seconds.decoding

    def book(
        self,
        *,
        queue: float = 0.0,
        features: float = 0.0,
        model: float = 0.0,
        decoding: float = 0.0,
    ) -> None:
        """Add what a step took."""
        now = self.seconds
        self.seconds = StageSeconds(
            queue=now.queue + queue,
            features=now.features + features,
            model=now.model + model,
            decoding=now.decoding + decoding,
        )

    def book_waiting(self, spent_s: float) -> None:
        """What no step took of the request's time was waiting: for a worker or for the model."""
        now = self.seconds
        steps_s = now.features + now.model + now.decoding
        self.seconds = replace(now, queue=max(0.0, spent_s - steps_s))


def normalisation(start: StartState) -> Normalisation:
    """What a transcript says about its front end's start."""
    return Normalisation(state="warm" if start.warm else "cold", prior_digest=start.prior_digest)


def timings_of(seconds: StageSeconds, *, network_s: float, total_s: float) -> Timings:
    """Seconds as the transcript's milliseconds."""

    def milliseconds(value: float) -> float:
        return round(value * 1000, 2)

    return Timings(
        network=milliseconds(network_s),
        queue=milliseconds(seconds.queue),
        features=milliseconds(seconds.features),
        model=milliseconds(seconds.model),
        decoding=milliseconds(seconds.decoding),
        total=milliseconds(total_s),
    )
