"""Where a job's audio comes from: an upload on disk, a URL under a policy, an object store.

URLs and object stores are closed until an operator opens hosts and prefixes by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.audio_errors import AudioTooLarge
from governance.errors import ConfigError
from serving.delivery.addresses import parse_url
from serving.delivery.objects import (
    SCHEMES,
    NoSuchObject,
    StoreRefused,
    StoreSilent,
    fetch_object,
)
from serving.delivery.outbound import AnswerTooLarge, Call, Outbound, OutboundError
from serving.jobs.aside import aside
from serving.jobs.blobs import BlobStore
from serving.jobs.records import Job
from serving.problems import ApiProblem, from_audio_error

_OK = 200


@dataclass(frozen=True, kw_only=True)
class SourcePolicy:
    """What a caller may name instead of sending audio."""

    url_hosts: tuple[str, ...] = ()  # example.com, *.example.com, or * for any
    object_prefixes: tuple[str, ...] = ()  # such as s3://bucket/folder
    max_bytes: int = 256 << 20
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        for prefix in self.object_prefixes:
            if prefix.partition("://")[0] not in SCHEMES:
                raise ConfigError(
                    f"must begin with {', '.join(SCHEMES)} and ://", item=f"objects below {prefix}"
                )

    def check_url(self, url: str, outbound: Outbound) -> None:
        """Refuse a URL that no worker would fetch."""
        place = parse_url(url, outbound.policy.openings, param="url")
        if not any(_matches(place.host, pattern) for pattern in self.url_hosts):
            raise ApiProblem(
                400,
                "This service fetches no audio from this host.",
                param="url",
                code="url_not_allowed",
            )

    def check_object(self, reference: str) -> None:
        """Refuse what lies outside the operator's prefixes, or might lead out of them."""
        inside = any(
            reference.startswith(prefix.rstrip("/") + "/") for prefix in self.object_prefixes
        )
        if not inside or ".." in reference.split("/"):
            raise ApiProblem(
                400,
                "This service reads no object from there.",
                param="object",
                code="object_not_allowed",
            )


class Sources:
    """Brings a job's audio near."""

    def __init__(self, policy: SourcePolicy, outbound: Outbound, blobs: BlobStore) -> None:
        self.policy = policy
        self.outbound = outbound
        self._blobs = blobs

    async def fetch(self, job: Job) -> Callable[[], bytes]:
        """What reads the audio; `ApiProblem` says why it cannot be had."""
        if job.request.source == "upload":
            return partial(self._blobs.read, job.blob)
        path = self._blobs.scratch(job.id)
        try:
            if job.request.source == "url":
                await self._download(job.request.reference, path)
            else:
                await self._copy(job.request.reference, path)
            content = await aside(path.read_bytes)
        finally:
            path.unlink(missing_ok=True)
        return lambda: content

    async def _download(self, url: str, path: Path) -> None:
        self.policy.check_url(url, self.outbound)  # the operator may have closed it meanwhile
        place = parse_url(url, self.outbound.policy.openings, param="url")
        call = Call(method="GET", place=place, headers={"User-Agent": "Auricle-Fetch/1"})
        try:
            with path.open("wb") as sink:
                answer = await self.outbound.call(
                    call,
                    timeout_s=self.policy.timeout_s,
                    max_bytes=self.policy.max_bytes,
                    sink=sink.write,
                )
        except AnswerTooLarge as error:
            raise ApiProblem(413, error.message, param="url", code="audio_too_large") from None
        except OutboundError as error:
            raise _unreachable(502, "url", error.message) from None
        if answer.status != _OK:
            status = 502 if answer.status >= 500 or answer.status == 429 else 400
            raise _unreachable(status, "url", f"the host answered {answer.status}")

    async def _copy(self, reference: str, path: Path) -> None:
        self.policy.check_object(reference)
        policy = self.policy
        try:
            await aside(
                fetch_object, reference, path,
                max_bytes=policy.max_bytes, timeout_s=policy.timeout_s,
            )  # fmt: skip
        except AudioTooLarge as error:
            raise from_audio_error(error) from None
        except NoSuchObject as error:
            raise _unreachable(400, "object", error.message) from None
        except (StoreRefused, StoreSilent) as error:
            raise _unreachable(502, "object", error.message) from None


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern in ("*", host)


def _unreachable(status: int, param: str, why: str) -> ApiProblem:
    message = f"The audio cannot be fetched: {why}."
    return ApiProblem(status, message, param=param, code=f"{param}_unreachable")
