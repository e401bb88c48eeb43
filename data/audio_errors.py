"""What can be wrong with a recording, each with a sentence for the person who sent it.

The tree::

    AudioError
    ├── UnreadableAudio    missing, a folder, not permitted
    ├── EmptyAudio         no bytes, or a header with no samples
    ├── UndecodableAudio   not audio, or audio that nobody can decode
    ├── TruncatedAudio     cut off before its first sample
    ├── AudioTooLong       more seconds than the caller allows
    └── AudioTooLarge      more bytes than the caller allows
"""

from governance.errors import AuricleError


class AudioError(AuricleError):
    """A recording that cannot be used."""


class UnreadableAudio(AudioError):
    """The file is missing, is no regular file, or may not be read."""


class EmptyAudio(AudioError):
    """There are no bytes, or a header and no samples."""


class UndecodableAudio(AudioError):
    """The content is not audio, or no decoder understands it."""


class TruncatedAudio(AudioError):
    """The recording was cut off before its first sample could be decoded."""


class AudioTooLong(AudioError):
    """The recording lasts longer than the caller allows."""


class AudioTooLarge(AudioError):
    """The file, or what it unpacks to, is larger than the caller allows."""
