"""The append-only, hash-chained event log: the single source of truth for what was decided.

Each event's hash covers its content and the hash before it, so an edited, removed or inserted event
breaks the chain. A bare chain cannot show a cut tail or a complete rewrite; signed checkpoints
(seq, head) in a second file can. What no checkpoint covers yet is counted and said.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from governance.canonical import bytes_digest, canonical_json
from governance.errors import ConfigError
from governance.keys import is_signed_by, public_hex, signing_key

_GENESIS = "sha256:" + "0" * 64
_CHECKPOINT_EVERY = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL
)"""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that was decided."""

    seq: int  # 1, 2, 3, ... without gaps
    at: str  # ISO 8601, UTC
    actor: str  # who decided
    kind: str  # promote, gate, ...
    body: dict[str, Any]
    prev: str  # hash of the event before
    hash: str

    def expected_hash(self) -> str:
        """The hash that this content must have."""
        content = {k: v for k, v in asdict(self).items() if k != "hash"}
        return bytes_digest(canonical_json(content).encode())


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
        return canonical_json({"seq": self.seq, "head": self.head, "at": self.at}).encode()


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What verification found."""

    ok: bool
    events: int
    checkpoints: int
    unanchored_tail: int  # newest events that no checkpoint covers: they could be cut unseen
    first_bad: int | None = None  # seq of the first bad event
    reason: str = ""


class Ledger:
    """Events in SQLite (WAL, every commit on disk), checkpoints in a JSON-lines file."""

    def __init__(
        self,
        path: Path,
        *,
        key_dir: Path,
        clock: Callable[[], str],
        checkpoints: Path | None = None,
    ) -> None:
        self._path = path
        self._key_dir = key_dir
        self._clock = clock
        self._checkpoints = checkpoints or path.with_name("ledger-checkpoints.jsonl")

    def append(self, kind: str, body: dict[str, Any], *, actor: str) -> Event:
        """Commit one event; it is on disk when this returns. Safe from several processes."""
        text = canonical_json(body)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            row = connection.execute(
                "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            last_seq, prev = row if row else (0, _GENESIS)
            draft = Event(
                seq=last_seq + 1,
                at=self._clock(),
                actor=actor,
                kind=kind,
                body=json.loads(text),
                prev=prev,
                hash="",
            )
            event = Event(**{**asdict(draft), "hash": draft.expected_hash()})
            connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                (event.seq, event.at, actor, kind, text, prev, event.hash),
            )
            connection.execute("COMMIT")
        if event.seq % _CHECKPOINT_EVERY == 0:
            self.checkpoint()
        return event

    def events(self, kind: str | None = None) -> list[Event]:
        """All events, or those of one kind, oldest first."""
        if not self._path.exists():
            return []
        with self._connection() as connection:
            rows = connection.execute("SELECT * FROM events ORDER BY seq").fetchall()
        found = [_event(row) for row in rows]
        return [event for event in found if kind is None or event.kind == kind]

    def checkpoint(self) -> Checkpoint:
        """Sign the present head and append it to the checkpoint file."""
        events = self.events()
        key = signing_key(self._key_dir)
        draft = Checkpoint(
            seq=events[-1].seq if events else 0,
            head=events[-1].hash if events else _GENESIS,
            at=self._clock(),
            public_key=public_hex(key),
            signature="",
        )
        signed = Checkpoint(**{**asdict(draft), "signature": key.sign(draft.content()).hex()})
        with self._checkpoints.open("a", encoding="utf-8") as stream:
            stream.write(canonical_json(asdict(signed)) + "\n")
        return signed

    def verify(self) -> VerifyReport:
        """Check every event, every link and every signed checkpoint; name the first bad one."""
        try:
            events = self.events()
        except (ConfigError, sqlite3.DatabaseError, ValueError) as error:
            return VerifyReport(
                ok=False,
                events=0,
                checkpoints=0,
                unanchored_tail=0,
                first_bad=1,
                reason=f"the ledger cannot be read ({error})",
            )
        bad = _first_broken(events)
        checkpoints, complaint = self._signed_checkpoints()
        if bad is None and complaint is None:
            bad = _first_unlike(events, checkpoints)
        anchored = max((point.seq for point in checkpoints), default=0)
        seq, reason = bad or complaint or (None, "")
        return VerifyReport(
            ok=not reason,
            events=len(events),
            checkpoints=len(checkpoints),
            unanchored_tail=max(0, len(events) - anchored),
            first_bad=seq,
            reason=reason,
        )

    def _signed_checkpoints(self) -> tuple[list[Checkpoint], tuple[int | None, str] | None]:
        """Checkpoints in file order, and the first complaint about one."""
        found: list[Checkpoint] = []
        if not self._checkpoints.exists():
            return found, None
        key = signing_key(self._key_dir)
        lines = self._checkpoints.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                point = Checkpoint(**json.loads(line))
                good = is_signed_by(key, bytes.fromhex(point.signature), point.content())
            except (ValueError, TypeError):
                return found, (None, f"checkpoint {number} cannot be read")
            if not good:
                return found, (point.seq, f"checkpoint {number} is not signed by this workspace")
            found.append(point)
        return found, None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"cannot be opened ({error})", item=str(self._path), mend="restore it from backup"
            ) from None
        try:
            yield connection
        finally:
            connection.close()


def _event(row: tuple[Any, ...]) -> Event:
    seq, at, actor, kind, body, prev, head = row
    return Event(
        seq=seq, at=at, actor=actor, kind=kind, body=json.loads(body), prev=prev, hash=head
    )


def _first_broken(events: list[Event]) -> tuple[int | None, str] | None:
    """The first event whose number, link or content does not fit."""
    prev = _GENESIS
    for expected_seq, event in enumerate(events, start=1):
        if event.seq != expected_seq:
            return expected_seq, f"event {expected_seq} is missing"
        if event.prev != prev:
            return event.seq, f"event {event.seq} does not follow the event before it"
        if event.hash != event.expected_hash():
            return event.seq, f"event {event.seq} was edited"
        prev = event.hash
    return None


def _first_unlike(
    events: list[Event], checkpoints: list[Checkpoint]
) -> tuple[int | None, str] | None:
    """The first checkpoint that the chain contradicts: a cut tail or a rewritten history."""
    for point in checkpoints:
        if point.seq > len(events):
            first_lost = len(events) + 1
            return first_lost, f"events {first_lost} to {point.seq} were cut off"
        head = events[point.seq - 1].hash if point.seq else _GENESIS
        if head != point.head:
            return point.seq, f"the history up to event {point.seq} was rewritten"
    return None
