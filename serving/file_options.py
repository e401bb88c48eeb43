"""What a request wants of a recording besides its text."""

from dataclasses import dataclass

from serving.assemble import PAUSE_S


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Choices for one recording; the defaults ask for nothing."""

    pause_s: float = PAUSE_S  # a longer silence between two words begins a new segment
    spelling: bool = False  # whether letters with their log-probabilities are wanted
    multichannel: bool = False  # every channel is a speaker of its own; otherwise they are mixed
    hotwords: tuple[str, ...] = ()  # phrases to expect, in the model's alphabet
    unusable_hotwords: int = 0  # of the request, left out before these


NOTHING_SPECIAL = FileOptions()
