"""From a presented credential to a Caller, fast enough for every request.

A known credential costs one keyed hash and one look at the store's version. What was found is
remembered until the store changes (by any process), so a revoked key is refused at its next use.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from serving.problems import ApiProblem
from serving.tenants import credentials
from serving.tenants.caller import Caller
from serving.tenants.policy import TenantPolicy
from serving.tenants.store import KeptKey, KeyStore

_REMEMBERED = 4096
GRANT_SCOPES = frozenset({"transcribe", "listen"})
GRANT_DEFAULT_S, GRANT_LONGEST_S = 30, 3600
TOKEN_STREAM_S = 4 * 3600.0  # how long a stream may outlive the client token that opened it


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who calls, what the tenant may use, and until when that is known to hold."""

    caller: Caller
    policy: TenantPolicy
    ends_at: float | None  # when key or token expires
    token_ends_at: float | None = None  # of a client token alone
    near: bool = False  # for callers on the service's own machine only


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How long what a credential opened may go on, and why no longer."""

    until: float
    code: str = ""
    reason: str = ""


_REVOKED = Standing(until=0.0, code="api_key_revoked", reason="This API key was revoked.")


class Authenticator:
    """Checks credentials against a key store. Used on one event loop."""

    def __init__(self, store: KeyStore, *, token_stream_s: float = TOKEN_STREAM_S) -> None:
        """A stream that a client token opened may go on for ``token_stream_s`` after its end."""
        self._store = store
        self._token_stream_s = token_stream_s
        self._known: OrderedDict[bytes, Identity] = OrderedDict()
        self._version = store.version()

    def identify(self, credential: str) -> Identity:
        """The caller of an API key or client token; 401 for anything else."""
        if (version := self._store.version()) != self._version:
            self._known.clear()
            self._version = version
        mark = credentials.fingerprint(credential, self._store.server_secret)
        identity = self._known.get(mark)
        if identity is None:
            identity = self._of_key(credential) or self._of_token(credential)
            if identity is None:
                raise unauthenticated("Incorrect API key provided.")
            self._known[mark] = identity
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(mark)
        if identity.ends_at is not None and identity.ends_at <= self._store.now():
            raise unauthenticated("This API key or token has expired.")
        return identity

    def grant(self, caller: Caller, *, ttl_s: int, scopes: Iterable[str] | None) -> str:
        """A client token with no more than the key's rights; it ends with its key at the latest."""
        if not caller.key_id or caller.granted:
            raise ApiProblem(403, "A token is granted to an API key only.", code="not_a_key")
        asked = GRANT_SCOPES & caller.scopes if scopes is None else frozenset(scopes)
        if not asked or "admin" in asked or not asked <= caller.scopes:
            raise ApiProblem(
                403, "A token has scopes of its key, and never `admin`.", code="insufficient_scope"
            )
        claims = {
            "sub": caller.tenant,
            "kid": caller.key_id,
            "scp": sorted(asked),
            "exp": self._store.now() + ttl_s,
        }
        return credentials.sign_token(claims, self._store.server_secret)

    def standing(self, identity: Identity) -> Standing:
        """How long a stream of this identity may go on, by what the store says now."""
        kept = self._store.find(identity.caller.key_id)
        if kept is None or kept.record.revoked_at is not None:
            return _REVOKED
        ends = [Standing(until=math.inf)]
        if (until := kept.record.expires_at) is not None:
            reason = "This API key has expired."
            ends.append(Standing(until=until, code="api_key_expired", reason=reason))
        if identity.token_ends_at is not None:
            until = identity.token_ends_at + self._token_stream_s
            reason = "The time of this client token is over."
            ends.append(Standing(until=until, code="token_expired", reason=reason))
        return min(ends, key=lambda end: end.until)

    def is_over(self, standing: Standing) -> bool:
        """Whether a stream may not go on."""
        return standing.until <= self._store.now()

    def store_version(self) -> int:
        """Changes whenever another connection changed the store."""
        return self._store.version()

    def _of_key(self, credential: str) -> Identity | None:
        key = credentials.read_key(credential)
        if key is None:
            return None
        kept = self._store.find(key.key_id)
        # An unknown id costs as much as a known one: the answer's time says nothing.
        salt, digest = (kept.salt, kept.digest) if kept else (bytes(16), bytes(32))
        holds = credentials.same(key.digest(salt, self._store.server_secret), digest)
        return self._identity(kept) if kept is not None and holds else None

    def _of_token(self, credential: str) -> Identity | None:
        claims = credentials.read_token(credential, self._store.server_secret)
        kept = self._store.find(claims["kid"]) if claims else None
        if claims is None or kept is None:
            return None
        identity = self._identity(kept)
        if identity is None:
            return None
        scopes = frozenset(claims["scp"]) & identity.caller.scopes
        token_ends_at = float(claims["exp"])
        ends = [token_ends_at, *([identity.ends_at] if identity.ends_at else [])]
        return replace(
            identity,
            caller=replace(identity.caller, scopes=scopes, granted=True),
            ends_at=min(ends),
            token_ends_at=token_ends_at,
        )

    def _identity(self, kept: KeptKey) -> Identity | None:
        record = kept.record
        if record.revoked_at is not None:
            return None
        policy = self._store.tenant(record.tenant)
        caller = Caller(
            tenant=record.tenant,
            key_id=record.id,
            scopes=record.scopes,
            redact=policy.redact,
            redact_mode=policy.redact_mode,
        )
        return Identity(caller=caller, policy=policy, ends_at=record.expires_at, near=record.near)


def unauthenticated(message: str) -> ApiProblem:
    """401 in OpenAI's words; it never repeats what was presented."""
    return ApiProblem(401, message, code="invalid_api_key")
