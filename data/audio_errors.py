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

    usual_mend = "check the file"

    def __init__(self, message: str, *, item: str | None = None, mend: str | None = None) -> None:
        super().__init__(message, item=item, mend=mend or self.usual_mend)


class UnreadableAudio(AudioError):
    """The file is missing, is no regular file, or may not be read."""

    usual_mend = "check the path and its permissions"


class EmptyAudio(AudioError):
    """There are no bytes, or a header and no samples."""

    usual_mend = "fetch or record the file again"


class UndecodableAudio(AudioError):
    """The content is not audio, or no decoder understands it."""

    usual_mend = "convert it to WAV or FLAC, or fetch the file again"


class TruncatedAudio(AudioError):
    """The recording was cut off before its first sample could be decoded."""

    usual_mend = "fetch the file again"


class AudioTooLong(AudioError):
    """The recording lasts longer than the caller allows."""

    usual_mend = "cut it into shorter files"


class AudioTooLarge(AudioError):
    """The file, or what it unpacks to, is larger than the caller allows."""

    usual_mend = "cut it into smaller files"
