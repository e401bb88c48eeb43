"""What can be wrong with a request, in the words and the JSON shape that OpenAI's clients read."""

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from data.audio_errors import AudioError, AudioTooLarge, AudioTooLong, EmptyAudio
from governance.errors import AuricleError

_RETRY_AFTER_S = 1


class AudioTooShort(AudioError):
    """Less audio than one model step."""


class ApiProblem(AuricleError):
    """A refusal with an HTTP status; ``param`` names the field of the request that caused it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.more_headers = dict(more_headers or {})

    @property
    def kind(self) -> str:
        """OpenAI's ``type``."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        """``{"error": {"message", "type", "param", "code"}}``."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """Headers that go with the status."""
        again = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return {**self.more_headers, **again}

    def response(self, extra_headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The refusal as an HTTP answer."""
        headers = {**self.headers(), **(extra_headers or {})}
        return JSONResponse(self.body(), status_code=self.status, headers=headers)


def too_large(limit: int) -> ApiProblem:
    """413: the body is longer than any may be."""
    message = f"The upload is larger than the {limit / (1 << 20):.4g} MiB allowed."
    return ApiProblem(413, message, param="file", code="audio_too_large")


def overloaded(
    message: str = "The service is at its limit of waiting work.",
    *,
    wait_s: float = _RETRY_AFTER_S,
) -> ApiProblem:
    """429 with Retry-After: ``wait_s``, in whole seconds and, for OpenAI's clients, exactly."""
    exactly = {"retry-after-ms": str(math.ceil(1000 * wait_s))}
    whole_s = max(1, math.ceil(wait_s))
    return ApiProblem(429, message, code="overloaded", retry_after_s=whole_s, more_headers=exactly)


def draining() -> ApiProblem:
    """503 with Retry-After: this process is about to stop."""
    return ApiProblem(
        503, "The service is shutting down.", code="draining", retry_after_s=_RETRY_AFTER_S
    )


def engine_down(wait_s: float) -> ApiProblem:
    """503 with Retry-After: the model fails on everything and is left alone for a while."""
    wait = max(1, math.ceil(wait_s))
    return ApiProblem(503, "The model is unavailable.", code="engine_down", retry_after_s=wait)


def deadline_passed(limit_s: float) -> ApiProblem:
    """503: the request waited longer than it may."""
    return ApiProblem(
        503,
        f"No free model within {limit_s:g} s.",
        code="deadline_exceeded",
        retry_after_s=_RETRY_AFTER_S,
    )


def from_audio_error(error: AudioError) -> ApiProblem:
    """The audio room's refusal as an answer; its message already names the item and the mend."""
    if isinstance(error, AudioTooLarge | AudioTooLong):
        code = "audio_too_large" if isinstance(error, AudioTooLarge) else "audio_too_long"
        return ApiProblem(413, str(error), param="file", code=code)
    if isinstance(error, EmptyAudio):
        return ApiProblem(400, str(error), param="file", code="empty_audio")
    if isinstance(error, AudioTooShort):
        return ApiProblem(400, str(error), param="file", code="audio_too_short")
    return ApiProblem(400, str(error), param="file", code="unreadable_audio")
