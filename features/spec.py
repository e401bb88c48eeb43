"""FeatureSpec: the frozen, fingerprinted definition of the front end.

The fingerprint travels in the feature archive, the checkpoint, the ONNX metadata and the bento.
Whoever loads two of them calls `require_same`, so a model never meets features of another kind.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from governance.canonical import digest
from governance.errors import AuricleError, ConfigError

_MEND = "give the fields that FeatureSpec.to_json() writes"


class FeatureSpecMismatch(AuricleError):
    """Two artefacts were made with different front ends."""


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Log-mel filter bank in Kaldi's conventions (dither off, DC removed per frame).

    Samples are float32 in [-1, 1] and are multiplied by ``sample_scale`` first: 32768 is what
    Kaldi's int16 recordings and sherpa-onnx feed, so all three see the same numbers.
    """

    sample_rate_hz: int = 16_000  # rate of the samples that come in
    window_ms: float = 25.0  # length of one frame
    hop_ms: float = 10.0  # distance between frame starts
    mel_bins: int = 80  # numbers per frame
    low_hz: float = 20.0  # lower edge of the first filter
    high_hz: float = 7600.0  # upper edge of the last filter
    fft_size: int = 512  # the frame is padded with zeros to this length
    preemphasis: float = 0.97  # y[n] = x[n] - preemphasis * x[n-1]
    window: str = "povey"  # (0.5 - 0.5 cos)^0.85; begins and ends with zero
    log_floor: float = 1.1920929e-07  # mel energies below it are raised to it
    snip_edges: bool = True  # only whole frames: nothing waits for the end of a stream
    sample_scale: float = 32768.0  # factor on the samples
    version: int = 1  # raised when the arithmetic changes at equal fields

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and type(value) is int:  # 20 and 20.0 are one fingerprint
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not field.type:
                raise _refusal(field.name, f"{value!r} is not of type {field.type!r}")
        self._check()

    def _check(self) -> None:
        for name in ("window_ms", "hop_ms"):
            samples = getattr(self, name) * self.sample_rate_hz / 1000
            if samples < 1 or samples != int(samples):
                raise _refusal(name, "must be a whole number of samples, at least one")
        if self.hop_samples > self.window_samples:
            raise _refusal("hop_ms", "must not exceed window_ms")
        if self.fft_size < self.window_samples or self.fft_size & (self.fft_size - 1):
            raise _refusal("fft_size", "must be a power of two that holds the window")
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate_hz / 2:
            raise _refusal("high_hz", "needs 0 <= low_hz < high_hz <= half the sample rate")
        if self.mel_bins < 1:
            raise _refusal("mel_bins", "must be at least 1")
        if not 0 <= self.preemphasis <= 1:
            raise _refusal("preemphasis", "must lie between 0 and 1")
        if self.log_floor <= 0 or self.sample_scale <= 0:
            raise _refusal("log_floor", "log_floor and sample_scale must be positive")
        if self.window != "povey" or not self.snip_edges or self.version != 1:
            # A window whose first sample is not zero would need the sample before each frame,
            # and padded edges would hold back a stream's last frames until it ends.
            raise _refusal("window", "only window=povey, snip_edges=true, version=1 are built")

    @property
    def window_samples(self) -> int:
        """Length of one frame in samples."""
        return int(self.window_ms * self.sample_rate_hz / 1000)

    @property
    def hop_samples(self) -> int:
        """Distance between frame starts in samples."""
        return int(self.hop_ms * self.sample_rate_hz / 1000)

    def fingerprint(self) -> str:
        """``fs1-<12 hex>``: equal exactly when every field is equal."""
        return "fs1-" + digest(self.to_json()).removeprefix("sha256:")[:12]

    def to_json(self) -> dict[str, Any]:
        """Every field by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str) -> "FeatureSpec":
        """Read what `to_json` gave (or its JSON text); unknown and missing fields are refused."""
        try:
            found = dict(json.loads(document) if isinstance(document, str) else document)
        except ValueError as error:
            raise ConfigError(f"not JSON ({error})", item="feature spec", mend=_MEND) from error
        names = {field.name for field in fields(cls)}
        if odd := sorted(names ^ found.keys()):
            word = "unknown" if odd[0] in found else "missing"
            raise _refusal(odd[0], f"{word} field")
        return cls(**found)


def require_same(expected: FeatureSpec, found: FeatureSpec, *, item: str = "feature spec") -> None:
    """Raise `FeatureSpecMismatch`, naming each field that differs, unless the two are equal."""
    wanted, given = expected.to_json(), found.to_json()
    differing = [
        f"{name} is {given[name]!r}, expected {wanted[name]!r}"
        for name in wanted
        if wanted[name] != given[name]
    ]
    if differing:
        raise FeatureSpecMismatch(
            f"made with another front end ({found.fingerprint()} instead of "
            f"{expected.fingerprint()}): " + "; ".join(differing),
            item=item,
            mend="use artefacts of one run, or run the stages from featurize again",
        )


def _refusal(name: str, message: str) -> ConfigError:
    return ConfigError(message, item=f"feature spec: {name}", mend=_MEND)
