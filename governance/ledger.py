"""The append-only event log: the single source of truth for what was decided.

Events lie in SQLite as one hash chain (``governance.chain``). Signed checkpoints lie in a second
file, and the newest of them beside the key too: to cut or rewrite what is anchored, one has to hold
the key folder. What no checkpoint covers yet is counted and said.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from governance.canonical import canonical_json, write_atomic
from governance.chain import (
    GENESIS,
    Checkpoint,
    Damage,
    StoredEvent,
    compare,
    sign_checkpoint,
    walk,
)
from governance.chain import Event as Event  # callers name the type by the ledger that gives it
from governance.errors import AuricleError, ConfigError, TamperError
from governance.keys import signing_key
from governance.records import plain

ANCHORED_KINDS = frozenset({"promote"})
"""Kinds of events that are signed at once; others wait for the next checkpoint."""
CHECKPOINT_EVERY = 1000
_BUSY_TIMEOUT_S = 30.0
_RESTORE = "restore the ledger and its checkpoints from a backup"
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS events (
        seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, kind TEXT NOT NULL,
        body TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL
    ) STRICT""",
    """CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
)  # the triggers stop accidents; the chain and the checkpoints show intent


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What verification found."""

    ok: bool
    events: int  # that can be read
    checkpoints: int  # whose signature holds
    unanchored_tail: int  # newest events that no checkpoint covers: they could be cut unseen
    first_bad: int | None = None  # seq of the first bad event
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An event before it has a place."""

    kind: str
    body: dict[str, Any]
    actor: str


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
        self._checkpoints = checkpoints or path.with_name(f"{path.stem}-checkpoints.jsonl")
        self._newest = key_dir / "ledger-newest-checkpoint.json"

    def append(self, kind: str, body: dict[str, Any], *, actor: str) -> Event:
        """Commit one event; it is on disk when this returns. Safe from several processes."""
        return self.append_all([Draft(kind=kind, body=body, actor=actor)])[-1]

    def append_all(self, drafts: Sequence[Draft]) -> list[Event]:
        """Commit events together, in order, at the price of one: all of them or none."""
        for draft in drafts:
            if not draft.kind or not draft.actor:
                raise ConfigError("an event names its kind and its actor", item="ledger")
        texts = [canonical_json(plain(draft.body, where=draft.kind)) for draft in drafts]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        stored: list[StoredEvent] = []
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            seq, prev = _head(connection)
            # a lost key is refused here: a new one could not vouch for what the old one signed
            signing_key(self._key_dir, create=seq == 0 and not self._newest.exists())
            self._refuse_if_cut(connection)
            for draft, text in zip(drafts, texts, strict=True):
                fields = {"at": self._clock(), "actor": draft.actor, "kind": draft.kind}
                fields |= {"body": text, "prev": prev}
                seq += 1
                bare = StoredEvent(seq=seq, **fields, hash="")
                event = StoredEvent(seq=seq, **fields, hash=bare.expected_hash())
                connection.execute(
                    "INSERT INTO events (seq, at, actor, kind, body, prev, hash) VALUES "
                    "(:seq, :at, :actor, :kind, :body, :prev, :hash)",
                    asdict(event),
                )
                prev = event.hash
                stored.append(event)
            connection.execute("COMMIT")
        if any(_is_anchored(event) for event in stored):
            self.checkpoint()
        return [event.event() for event in stored]

    def events(self, kind: str | None = None) -> list[Event]:
        """All events, or those of one kind, oldest first; an edited one of any kind is refused."""
        events = [row.event() for row in self._rows()]
        return [event for event in events if kind in (None, event.kind)]

    def checkpoint(self) -> Checkpoint:
        """Sign the present head; append it to the checkpoint file and keep it beside the key."""
        key = signing_key(self._key_dir, create=False)
        with self._checkpoints.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # order of checkpoints = order of their heads
            with self._connection() as connection:
                self._refuse_if_cut(connection)
                seq, head = _head(connection)
            point = sign_checkpoint(key, seq=seq, head=head, at=self._clock())
            line = canonical_json(asdict(point)).encode()
            _drop_torn_line(stream.fileno())
            stream.write(line + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            write_atomic(self._newest, line + b"\n")
        return point

    def verify(self) -> VerifyReport:
        """Check every event, every link and every signed checkpoint; name the first bad one."""
        try:
            state = walk(self._rows())
            points, damage = self._signed_checkpoints(needs_key=bool(state.heads))
        except AuricleError as error:
            return VerifyReport(
                ok=False, events=0, checkpoints=0, unanchored_tail=0, reason=str(error)
            )
        damage = state.damage or compare(state.heads, points) or damage
        anchored = max((point.seq for point in points), default=0)
        return VerifyReport(
            ok=damage is None,
            events=len(state.heads),
            checkpoints=len(points),
            unanchored_tail=max(0, len(state.heads) - anchored),
            first_bad=damage.seq if damage else None,
            reason=damage.reason if damage else "",
        )

    def _rows(self) -> list[StoredEvent]:
        if not self._path.exists():
            return []
        with self._connection() as connection:
            present = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'")
            if present.fetchone() is None:
                return []
            rows = connection.execute(
                "SELECT seq, at, actor, kind, body, prev, hash FROM events ORDER BY seq"
            ).fetchall()
        names = ("seq", "at", "actor", "kind", "body", "prev", "hash")
        return [StoredEvent(**dict(zip(names, row, strict=True))) for row in rows]

    def _refuse_if_cut(self, connection: sqlite3.Connection) -> None:
        """Nothing is added to a history that lost what the checkpoint beside the key names."""
        for line in _complete_lines(self._newest):
            point = json.loads(line)
            row = connection.execute("SELECT hash FROM events WHERE seq = ?", (point["seq"],))
            if row.fetchone() != (point["head"],):
                raise TamperError(
                    f"event {point['seq']} is not what was signed",
                    item=str(self._path),
                    mend=f"`auricle audit verify`, then {_RESTORE}",
                )

    def _signed_checkpoints(self, *, needs_key: bool) -> tuple[list[Checkpoint], Damage | None]:
        """Checkpoints in file order up to the first that does not hold, and what is wrong with it.

        The last one is the copy beside the key, which shows when the file itself was cut.
        """
        lines = _complete_lines(self._checkpoints)
        kept = _complete_lines(self._newest)
        if not lines and not kept and not needs_key:
            return [], None
        key = signing_key(self._key_dir, create=False)
        found: list[Checkpoint] = []
        places = [f"checkpoint {number}" for number in range(1, len(lines) + 1)]
        for place, line in zip([*places, self._newest.name], [*lines, *kept], strict=False):
            try:
                point = Checkpoint(**json.loads(line))
            except (ValueError, TypeError):
                return found, Damage(seq=None, reason=f"{place} cannot be read")
            if not point.is_signed_by(key):
                reason = f"{place} is not signed with this workspace's key"
                return found, Damage(seq=point.seq, reason=reason)
            found.append(point)
        if kept and found[-1] not in found[:-1]:
            reason = f"the checkpoint of event {found[-1].seq} was removed from the checkpoint file"
            return found, Damage(seq=None, reason=reason)
        return found[: len(lines)], None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
        except sqlite3.OperationalError as error:
            raise AuricleError(
                f"the ledger is not usable now ({error})",
                item=str(self._path),
                mend="check the disk and that the folder is writable, then try again",
            ) from error
        except sqlite3.DatabaseError as error:
            raise TamperError(
                f"the ledger cannot be read ({error})", item=str(self._path), mend=_RESTORE
            ) from error
        finally:
            if connection is not None:
                connection.close()


def _is_anchored(event: StoredEvent) -> bool:
    """Whether a checkpoint is signed as soon as this event is committed."""
    return event.seq == 1 or event.seq % CHECKPOINT_EVERY == 0 or event.kind in ANCHORED_KINDS


def _head(connection: sqlite3.Connection) -> tuple[int, str]:
    """Number and hash of the last event."""
    last = connection.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return (last[0], last[1]) if last else (0, GENESIS)


def _complete_lines(path: Path) -> list[str]:
    """Lines that were written to their end; a torn last one was never acknowledged."""
    if not path.exists():
        return []
    return path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]


def _drop_torn_line(handle: int) -> None:
    """Cut what a crash left of an unfinished last line, so that the next line starts clean."""
    size = os.fstat(handle).st_size
    content = os.pread(handle, size, 0)
    if content and not content.endswith(b"\n"):
        os.ftruncate(handle, content.rfind(b"\n") + 1)
