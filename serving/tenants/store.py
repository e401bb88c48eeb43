"""The key store: which keys there are, whose they are, and what each tenant may do. One SQLite file.

Beside it lies the server secret (``<name>.secret``, 32 bytes). Both are readable by their owner only
and belong into a backup; they are of no use without each other.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from governance.errors import ConfigError
from serving.tenants.caller import SCOPES
from serving.tenants.credentials import SECRET_BYTES, KeyText, new_key
from serving.tenants.files import opened, transaction
from serving.tenants.policy import TenantPolicy, require_tenant_name

_NEAR = "near INTEGER NOT NULL DEFAULT 0"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, salt BLOB NOT NULL,
    digest BLOB NOT NULL, scopes TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL,
    revoked_at REAL, rotated_from TEXT, {_NEAR}
) STRICT;
CREATE TABLE IF NOT EXISTS tenants (name TEXT PRIMARY KEY, policy TEXT NOT NULL) STRICT;
"""
_COLUMNS = (
    "id, tenant, name, scopes, created_at, expires_at, revoked_at, rotated_from, near, salt, digest"
)
_WHAT = "the key store"
_NAME_CHARACTERS = 80


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """A key without its secret."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[str]
    created_at: float  # seconds since 1970
    expires_at: float | None
    revoked_at: float | None
    rotated_from: str | None  # the key that it replaces
    near: bool = False  # only the service's own machine may use it

    def state(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, kw_only=True, repr=False)
class KeptKey:
    """A key as it lies in the store."""

    record: KeyRecord
    salt: bytes
    digest: bytes


@dataclass(frozen=True, kw_only=True, repr=False)
class IssuedKey:
    """A new key. Its text exists here only and is shown once."""

    record: KeyRecord
    text: str


class KeyStore:
    """One connection to the store; not to be shared by threads."""

    def __init__(
        self, path: Path, *, create: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._clock = clock
        if not create and not path.exists():
            raise ConfigError("no key store", item=str(path), mend="`auricle keys create`")
        self.server_secret = _server_secret(path.with_suffix(".secret"), create=not path.exists())
        self._connection = opened(path, schema=_SCHEMA, what=_WHAT, power_cut_safe=True)
        self._connection.row_factory = sqlite3.Row
        self._add_new_columns()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def version(self) -> int:
        """Changes whenever another connection changed the store; costs microseconds."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def create(
        self,
        tenant: str,
        scopes: Iterable[str],
        *,
        name: str = "",
        lifetime_s: float | None = None,
        near: bool = False,
    ) -> IssuedKey:
        """A new key of a tenant, which need not exist before; ``near``: for this machine alone."""
        now = self._clock()
        record = KeyRecord(
            id="",
            tenant=require_tenant_name(tenant),
            name=_shown(name),
            scopes=_checked(scopes),
            created_at=now,
            expires_at=None if lifetime_s is None else now + lifetime_s,
            revoked_at=None,
            rotated_from=None,
            near=near,
        )
        with self._transaction():
            return self._insert(record)

    def rotate(self, key_id: str, *, overlap_s: float, lifetime_s: float | None) -> IssuedKey:
        """A successor with the same rights; the old key works for ``overlap_s`` more."""
        with self._transaction():
            old = self._existing(key_id)
            now = self._clock()
            if old.state(now) != "active":
                raise ConfigError(f"this key is {old.state(now)}", item=key_id)
            ends = min(now + overlap_s, old.expires_at or float("inf"))
            self._connection.execute("UPDATE keys SET expires_at = ? WHERE id = ?", (ends, key_id))
            expires_at = None if lifetime_s is None else now + lifetime_s
            return self._insert(
                replace(old, created_at=now, expires_at=expires_at, rotated_from=key_id)
            )

    def revoke(self, key_id: str) -> KeyRecord:
        """End a key and the client tokens that it granted, at once; twice is once."""
        with self._transaction():
            old = self._existing(key_id)
            revoked_at = old.revoked_at or self._clock()
            self._connection.execute(
                "UPDATE keys SET revoked_at = ? WHERE id = ?", (revoked_at, key_id)
            )
            return replace(old, revoked_at=revoked_at)

    def records(self) -> list[KeyRecord]:
        """Every key that ever was, oldest first."""
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id")
        return [_kept(row).record for row in rows]

    def find(self, key_id: str) -> KeptKey | None:
        """A key by its public half."""
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (key_id,)
        ).fetchone()
        return _kept(row) if row else None

    def tenant(self, name: str) -> TenantPolicy:
        """What a tenant may do; without a word about it, everything."""
        row = self._connection.execute(
            "SELECT policy FROM tenants WHERE name = ?", (name,)
        ).fetchone()
        return TenantPolicy.from_plain(json.loads(row[0])) if row else TenantPolicy()

    def set_tenant(self, name: str, policy: TenantPolicy) -> None:
        """Say what a tenant may do from now on."""
        content = json.dumps(policy.plain(), sort_keys=True)
        with self._transaction():
            self._connection.execute(
                "INSERT INTO tenants VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET policy = ?",
                (require_tenant_name(name), content, content),
            )

    def _existing(self, key_id: str) -> KeyRecord:
        kept = self.find(key_id)
        if kept is None:
            raise ConfigError("no such key", item=key_id, mend="`auricle keys list`")
        return kept.record

    def _insert(self, draft: KeyRecord) -> IssuedKey:
        key: KeyText = new_key()
        record = replace(draft, id=key.key_id)
        salt = os.urandom(16)
        self._connection.execute(
            f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id, record.tenant, record.name, " ".join(sorted(record.scopes)),
                record.created_at, record.expires_at, record.revoked_at, record.rotated_from,
                int(record.near), salt, key.digest(salt, self.server_secret),
            ),
        )  # fmt: skip
        return IssuedKey(record=record, text=key.text())

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._connection, self._path, what=_WHAT)

    def _add_new_columns(self) -> None:
        """What stores of earlier versions lack."""
        if "near" in self._columns():
            return
        with self._transaction():
            if "near" not in self._columns():  # another process may have been first
                self._connection.execute(f"ALTER TABLE keys ADD COLUMN {_NEAR}")

    def _columns(self) -> set[str]:
        return {row["name"] for row in self._connection.execute("PRAGMA table_info(keys)")}


def _kept(row: sqlite3.Row) -> KeptKey:
    record = KeyRecord(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        scopes=frozenset(row["scopes"].split()),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        rotated_from=row["rotated_from"],
        near=bool(row["near"]),
    )
    return KeptKey(record=record, salt=row["salt"], digest=row["digest"])


def _checked(scopes: Iterable[str]) -> frozenset[str]:
    asked = frozenset(scopes)
    if not asked or asked - SCOPES:
        raise ConfigError(f"must be of {', '.join(sorted(SCOPES))}", item="scopes")
    return asked


def _shown(name: str) -> str:
    if len(name) > _NAME_CHARACTERS or not name.isprintable():
        raise ConfigError(f"must be printable, at most {_NAME_CHARACTERS} characters", item="name")
    return name


def _server_secret(path: Path, *, create: bool) -> bytes:
    """32 bytes; a lost one cannot be made again, since it vouches for every key."""
    if create and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as sink:
            sink.write(os.urandom(SECRET_BYTES))
            sink.flush()
            os.fsync(sink.fileno())
    if not path.exists():
        raise ConfigError("the server secret is missing", item=str(path), mend="restore its backup")
    if path.stat().st_mode & 0o077:
        raise ConfigError("others may read it", item=str(path), mend=f"chmod 600 '{path}'")
    content = path.read_bytes()
    if len(content) != SECRET_BYTES:
        raise ConfigError(f"{len(content)} bytes, not {SECRET_BYTES}", item=str(path))
    return content
