"""Errors that speak to the person at the keyboard.

The tree (each folder adds its own leaves)::

    AuricleError
    ├── ConfigError      params.yaml, policy.yaml, a manifest or a bundle says something unusable
    ├── TamperError      a digest, signature or hash chain does not match
    └── GateRefused      a policy gate said no
"""


class AuricleError(Exception):
    """A failure that the user can understand and mend.

    ``item`` names what was being handled (a file, a field, a row), ``mend`` what to do about it.
    The command line prints ``str(error)`` and no traceback.
    """

    def __init__(self, message: str, *, item: str | None = None, mend: str | None = None) -> None:
        self.message = message
        self.item = item
        self.mend = mend
        super().__init__(message)

    def __str__(self) -> str:
        """``item: message. Mend: what to do.``"""
        text = f"{self.item}: {self.message}" if self.item else self.message
        return f"{text.rstrip('.')}. Mend: {self.mend}" if self.mend else text


class ConfigError(AuricleError):
    """A configuration value that is missing, unknown or out of range."""


class TamperError(AuricleError):
    """Something that must never change has changed."""


class GateRefused(AuricleError):
    """A policy gate refused an operation."""
