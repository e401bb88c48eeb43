"""How idle workers hear that something waits: in this process, or over Redis Streams.

The database alone says what waits; a bell only spares looking. What it fails to tell is found by
looking anyway, so a lost ring costs seconds and never a job.
"""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from governance.errors import ConfigError
from serving import logs
from serving.jobs.changes import Changes, happened

if TYPE_CHECKING:
    from redis.asyncio import Redis

_LOCAL_LOOK_S = 1.0  # other processes of this machine ring no bell here
_REDIS_LOOK_S = 10.0  # retries and lost leases ring none either
_PREFIX, _GROUP = "auricle:jobs:", "workers"
_KEPT = 10_000  # rings that nobody has heard yet; more say nothing new


class Ear(Protocol):
    """Listens for one topic from its creation on."""

    async def heard(self) -> None:
        """Return at a ring, and at the latest when it is time to look anyway."""


class Bell(Protocol):
    """Rings for everybody who works on this store."""

    async def ring(self, topic: str) -> None:
        """Something waits."""

    def listening(self, topic: str) -> AbstractContextManager[Ear]:
        """An ear, while it is needed."""

    async def close(self) -> None:
        """Let go."""


class LocalBell:
    """Rings in this process."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    async def ring(self, topic: str) -> None:
        """Wake whoever listens here."""
        self._changes.tell(topic)

    @contextmanager
    def listening(self, topic: str) -> "Iterator[LocalEar]":
        """An ear that misses no ring between two looks."""
        with self._changes.following(topic) as news:
            yield LocalEar(news)

    async def close(self) -> None:
        """Nothing is held."""


class LocalEar:
    """Waits for an event."""

    def __init__(self, news: asyncio.Event) -> None:
        self._news = news

    async def heard(self) -> None:
        """Return at a ring or after a second."""
        await happened(self._news, within_s=_LOCAL_LOOK_S)


class RedisBell:
    """One stream for each topic, read by one consumer group: a ring wakes one idle worker.

    A worker reads only while it is idle, so no ring is taken by one that has its hands full.
    """

    def __init__(self, address: str) -> None:
        try:
            import redis.asyncio
        except ImportError:
            raise ConfigError(
                "needs the package redis", item="AURICLE_JOBS_REDIS", mend="pip install redis"
            ) from None
        self._redis: Redis = redis.asyncio.from_url(
            address, socket_connect_timeout=2, socket_timeout=_REDIS_LOOK_S + 5
        )

    async def ring(self, topic: str) -> None:
        """Add to the stream; a server that does not answer is worked without."""
        import redis

        try:
            await self._redis.xadd(_PREFIX + topic, {"at": ""}, maxlen=_KEPT, approximate=True)
        except redis.RedisError as error:
            logs.crash("job_bell_unavailable", error)

    @contextmanager
    def listening(self, topic: str) -> "Iterator[RedisEar]":
        """An ear with a name of its own in the group."""
        yield RedisEar(self._redis, _PREFIX + topic)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()


class RedisEar:
    """A consumer of a topic's group. What is read is taken: the database holds the work itself."""

    def __init__(self, redis: "Redis", stream: str) -> None:
        self._redis = redis
        self._stream = stream
        self._name = secrets.token_hex(8)

    async def heard(self) -> None:
        """Return at a ring or after ten seconds; without a server after one."""
        import redis

        try:
            await self._redis.xreadgroup(
                _GROUP, self._name, {self._stream: ">"}, count=1, noack=True,
                block=int(_REDIS_LOOK_S * 1000),
            )  # fmt: skip
        except redis.ResponseError:
            await self._join()
        except redis.RedisError as error:
            logs.crash("job_bell_unavailable", error)
            await asyncio.sleep(_LOCAL_LOOK_S)

    async def _join(self) -> None:
        """The first worker makes the group; a server that has forgotten it gets it again."""
        import redis

        try:
            await self._redis.xgroup_create(self._stream, _GROUP, id="0", mkstream=True)
        except redis.ResponseError:  # another was first, or it is refused
            await asyncio.sleep(_LOCAL_LOOK_S)
        except redis.RedisError as error:
            logs.crash("job_bell_unavailable", error)
            await asyncio.sleep(_LOCAL_LOOK_S)
