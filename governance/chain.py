"""The ledger's mathematics, without storage: hashes of events, signed checkpoints, what is broken.

An event's hash covers its content and the hash before it, so an edit, a removal or an insertion
breaks the chain. A bare chain cannot show a cut tail or a complete rewrite with fresh hashes; a
signed checkpoint (seq, head) that the chain no longer agrees with can.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governance.canonical import bytes_digest, canonical_json
from governance.errors import TamperError
from governance.keys import is_signed_by, public_hex

GENESIS = "sha256:" + "0" * 64
_PURPOSE = "auricle-ledger-checkpoint-1"  # a signature made for anything else is no checkpoint


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that was decided."""

    seq: int  # 1, 2, 3, ... without gaps
    at: str  # ISO 8601, UTC
    actor: str  # who decided
    kind: str  # promote, gate, ...
    body: dict[str, Any]  # what was decided
    prev: str  # hash of the event before
    hash: str  # of everything above


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """An event as it lies in the database: the body is text, and its bytes are what is hashed."""

    seq: int
    at: str
    actor: str
    kind: str
    body: str  # canonical JSON
    prev: str
    hash: str

    def expected_hash(self) -> str:
        """The hash that this content must have."""
        fields = [self.seq, self.at, self.actor, self.kind, self.body, self.prev]
        return bytes_digest(canonical_json(fields).encode())

    def event(self) -> Event:
        """The event, with its body parsed; refused when its content does not match its hash."""
        if self.hash != self.expected_hash():
            raise TamperError(
                f"event {self.seq} was edited: its content does not match its hash",
                item="ledger",
                mend="`auricle audit verify`, then restore the ledger from a backup",
            )
        return Event(
            seq=self.seq,
            at=self.at,
            actor=self.actor,
            kind=self.kind,
            body=json.loads(self.body),
            prev=self.prev,
            hash=self.hash,
        )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A signed statement: after event ``seq`` the head was ``head``."""

    seq: int
    head: str
    at: str
    public_key: str
    signature: str

    def content(self) -> bytes:
        """The bytes that are signed."""
        fields = {"purpose": _PURPOSE, "seq": self.seq, "head": self.head, "at": self.at}
        return canonical_json(fields).encode()

    def is_signed_by(self, key: Ed25519PrivateKey) -> bool:
        """Whether the signature is ``key``'s."""
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            return False
        return is_signed_by(key, signature, self.content())


@dataclass(frozen=True, kw_only=True)
class Damage:
    """The first thing that is wrong."""

    seq: int | None  # first bad event, where one can be named
    reason: str


@dataclass(frozen=True, kw_only=True)
class ChainState:
    """What one walk along the chain found."""

    heads: tuple[str, ...]  # hash of each good event from the first on
    damage: Damage | None  # why the walk ended early


def sign_checkpoint(key: Ed25519PrivateKey, *, seq: int, head: str, at: str) -> Checkpoint:
    """A checkpoint signed with ``key``."""
    draft = Checkpoint(seq=seq, head=head, at=at, public_key=public_hex(key), signature="")
    signature = key.sign(draft.content()).hex()
    return Checkpoint(seq=seq, head=head, at=at, public_key=draft.public_key, signature=signature)


def walk(rows: Iterable[StoredEvent]) -> ChainState:
    """Follow the chain from the first event and stop at the first one that does not fit."""
    heads: list[str] = []
    for row in rows:
        seq = len(heads) + 1
        prev = heads[-1] if heads else GENESIS
        reason = None
        if row.seq != seq:
            reason = f"event {seq} is missing: the next one that is there is {row.seq}"
        elif row.hash != row.expected_hash():
            reason = f"event {seq} was edited: its content does not match its hash"
        elif row.prev != prev:
            # the later hashes hold on to the old content of the event before: that one was changed
            seq = max(1, seq - 1)
            reason = f"event {seq} was rewritten: its successor is chained to another content"
        if reason:
            return ChainState(heads=tuple(heads), damage=Damage(seq=seq, reason=reason))
        heads.append(row.hash)
    return ChainState(heads=tuple(heads), damage=None)


def compare(heads: tuple[str, ...], checkpoints: Iterable[Checkpoint]) -> Damage | None:
    """The first signed checkpoint that the chain contradicts: a cut tail or a rewritten history."""
    points = list(checkpoints)
    last = max((point.seq for point in points), default=0)
    agreed = 0
    for point in points:
        if point.seq > len(heads):
            lost = f"events {len(heads) + 1} to {last} were cut off"
            return Damage(seq=len(heads) + 1, reason=f"{lost}: a signed checkpoint names them")
        head = heads[point.seq - 1] if point.seq else GENESIS
        if head != point.head:
            first = min(agreed + 1, point.seq)
            span = f"event {first}" if first == point.seq else f"events {first} to {point.seq}"
            return Damage(seq=first, reason=f"{span} rewritten after a checkpoint was signed")
        agreed = max(agreed, point.seq)
    return None
