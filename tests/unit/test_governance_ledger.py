import itertools
import json
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from governance.canonical import canonical_json
from governance.chain import GENESIS, StoredEvent
from governance.errors import AuricleError, ConfigError, TamperError
from governance.ledger import Ledger

EVENTS = 6


def clock() -> str:
    return "2026-01-01T00:00:00.000+00:00"


def open_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.db", key_dir=folder / "keys", clock=clock)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six events; the first and (a promotion) the fourth are anchored."""
    ledger = open_ledger(tmp_path)
    for number in range(1, EVENTS + 1):
        kind = "promote" if number == 4 else "gate"
        ledger.append(kind, {"number": number}, actor="someone")
    return tmp_path


def attack(folder: Path, *statements: str) -> None:
    """What somebody with write access to the database can do."""
    with sqlite3.connect(folder / "ledger.db") as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("DROP TRIGGER no_delete")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def rewrite(folder: Path, first: int, last: int) -> None:
    """Replace history from ``first`` on by another one with fresh, valid hashes."""
    attack(folder, f"DELETE FROM events WHERE seq >= {first}")
    with sqlite3.connect(folder / "ledger.db") as connection:
        found = connection.execute("SELECT hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        prev = found[0] if found else GENESIS
        for seq in range(first, last + 1):
            fields = {"at": clock(), "actor": "mallory", "kind": "gate", "body": "{}", "prev": prev}
            prev = StoredEvent(seq=seq, **fields, hash="").expected_hash()
            connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                (seq, clock(), "mallory", "gate", "{}", fields["prev"], prev),
            )
    connection.close()


def test_events_come_back_in_order_and_chained(folder: Path) -> None:
    events = open_ledger(folder).events()
    assert [event.seq for event in events] == list(range(1, EVENTS + 1))
    assert [event.body["number"] for event in events] == list(range(1, EVENTS + 1))
    assert all(b.prev == a.hash for a, b in itertools.pairwise(events))
    assert [event.seq for event in open_ledger(folder).events("promote")] == [4]


def test_an_honest_ledger_verifies_and_its_unanchored_tail_is_counted(folder: Path) -> None:
    ledger = open_ledger(folder)
    report = ledger.verify()
    assert report.ok and report.first_bad is None
    assert (report.events, report.checkpoints, report.unanchored_tail) == (EVENTS, 2, 2)
    assert ledger.checkpoint().seq == EVENTS
    assert ledger.verify().unanchored_tail == 0


def test_an_empty_or_absent_ledger_is_fine_and_verifying_makes_no_file(tmp_path: Path) -> None:
    report = open_ledger(tmp_path).verify()
    assert report.ok and report.events == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statement", "first_bad", "reason"),
    [
        ("UPDATE events SET body = '{\"number\":9}' WHERE seq = 3", 3, "was edited"),
        ("UPDATE events SET actor = 'mallory' WHERE seq = 6", 6, "was edited"),
        ("UPDATE events SET at = 'later' WHERE seq = 1", 1, "was edited"),
        ("DELETE FROM events WHERE seq = 2", 2, "event 2 is missing"),
        ("DELETE FROM events WHERE seq >= 3", 3, "events 3 to 4 were cut off"),
        ("DELETE FROM events", 1, "events 1 to 4 were cut off"),
        ("UPDATE events SET seq = 9 WHERE seq = 6", 6, "event 6 is missing"),
    ],
)
def test_tampering_is_detected_and_the_first_bad_event_named(
    folder: Path, statement: str, first_bad: int, reason: str
) -> None:
    attack(folder, statement)
    report = open_ledger(folder).verify()
    assert not report.ok
    assert report.first_bad == first_bad
    assert reason in report.reason


@pytest.mark.parametrize(("first", "first_bad"), [(1, 1), (2, 2), (3, 2), (4, 2)])
def test_a_rewrite_with_fresh_hashes_is_detected(folder: Path, first: int, first_bad: int) -> None:
    rewrite(folder, first, EVENTS)
    report = open_ledger(folder).verify()
    assert not report.ok and "rewritten" in report.reason
    assert report.first_bad == first_bad  # the earliest event that no checkpoint vouches for


def test_one_event_rewritten_with_its_own_hash_is_named(folder: Path) -> None:
    event = open_ledger(folder).events()[2]
    fields = {"at": event.at, "actor": event.actor, "kind": event.kind, "prev": event.prev}
    forged = StoredEvent(seq=3, body=canonical_json({"number": 9}), **fields, hash="")
    change = f"body = '{forged.body}', hash = '{forged.expected_hash()}'"
    attack(folder, f"UPDATE events SET {change} WHERE seq = 3")
    report = open_ledger(folder).verify()
    assert (report.ok, report.first_bad) == (False, 3)


def test_a_cut_of_the_unanchored_tail_is_what_the_report_warned_of(folder: Path) -> None:
    assert open_ledger(folder).verify().unanchored_tail == 2
    attack(folder, "DELETE FROM events WHERE seq > 4")
    report = open_ledger(folder).verify()
    assert report.ok and report.events == 4


def edit_checkpoints(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / "ledger-checkpoints.jsonl"
    lines = change(path.read_text().splitlines())
    path.write_text("".join(f"{line}\n" for line in lines))


def test_cutting_ledger_and_checkpoints_together_is_detected(folder: Path) -> None:
    attack(folder, "DELETE FROM events WHERE seq > 2")
    edit_checkpoints(folder, lambda lines: lines[:1])
    report = open_ledger(folder).verify()
    assert (report.ok, report.first_bad) == (False, 3)
    with pytest.raises(TamperError, match="event 4 is not what was signed"):
        open_ledger(folder).append("gate", {}, actor="someone")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: [], "was removed from the checkpoint file"),
        (lambda lines: [lines[0], "{half"], "checkpoint 2 cannot be read"),
        (lambda lines: [lines[0].replace('"seq":1', '"seq":2'), lines[1]], "not signed with"),
    ],
)
def test_a_touched_checkpoint_file_is_detected(
    folder: Path, change: Callable[[list[str]], list[str]], reason: str
) -> None:
    edit_checkpoints(folder, change)
    report = open_ledger(folder).verify()
    assert not report.ok and reason in report.reason


def test_checkpoints_of_another_key_do_not_vouch(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    open_ledger(other).append("gate", {}, actor="mallory")
    (other / "keys" / "ledger.key").replace(folder / "keys" / "ledger.key")
    report = open_ledger(folder).verify()
    assert not report.ok and "not signed with this workspace's key" in report.reason


def test_a_lost_key_is_said_and_never_replaced(folder: Path) -> None:
    (folder / "keys" / "ledger.key").unlink()
    report = open_ledger(folder).verify()
    assert not report.ok and "signing key is missing" in report.reason
    with pytest.raises(ConfigError, match="signing key is missing"):
        open_ledger(folder).append("gate", {}, actor="someone")
    assert not (folder / "keys" / "ledger.key").exists()


def test_the_key_is_private_and_a_public_one_is_refused(folder: Path) -> None:
    key = folder / "keys" / "ledger.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        open_ledger(folder).checkpoint()


def test_a_torn_checkpoint_line_of_a_crash_is_dropped(folder: Path) -> None:
    path = folder / "ledger-checkpoints.jsonl"
    with path.open("a") as stream:
        stream.write('{"seq": 5, "he')
    assert open_ledger(folder).verify().ok
    open_ledger(folder).checkpoint()
    assert open_ledger(folder).verify().ok
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 4, 6]


def test_accidental_updates_and_deletes_are_refused_by_the_database(folder: Path) -> None:
    with sqlite3.connect(folder / "ledger.db") as connection:
        for statement in ("DELETE FROM events", "UPDATE events SET actor = 'x'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()


def test_an_edited_event_is_refused_when_read(folder: Path) -> None:
    attack(folder, "UPDATE events SET body = '{}' WHERE seq = 4")
    with pytest.raises(TamperError, match="event 4 was edited"):
        open_ledger(folder).events("promote")


def test_a_file_that_is_no_database_is_named(folder: Path) -> None:
    (folder / "ledger.db").write_bytes(b"not a database at all" * 100)
    for suffix in ("-wal", "-shm"):
        (folder / f"ledger.db{suffix}").unlink(missing_ok=True)
    report = open_ledger(folder).verify()
    assert not report.ok and "cannot be read" in report.reason and "Mend:" in report.reason


def test_what_json_cannot_hold_is_refused_and_nothing_is_written(folder: Path) -> None:
    with pytest.raises(AuricleError, match=r"gate\.wer"):
        open_ledger(folder).append("gate", {"wer": float("nan")}, actor="someone")
    with pytest.raises(ConfigError, match="actor"):
        open_ledger(folder).append("gate", {}, actor="")
    assert len(open_ledger(folder).events()) == EVENTS


def _append_many(folder: Path, name: str, count: int) -> None:
    ledger = open_ledger(folder)
    for number in range(count):
        ledger.append("promote" if number % 5 == 0 else "gate", {"n": number}, actor=name)


def test_appends_of_several_processes_form_one_chain(tmp_path: Path) -> None:
    workers, each = 4, 15
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_append_many, args=(tmp_path, f"worker-{index}", each))
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * workers
    ledger = open_ledger(tmp_path)
    assert ledger.verify().ok
    events = ledger.events()
    assert len(events) == workers * each
    for index in range(workers):
        own = [event.body["n"] for event in events if event.actor == f"worker-{index}"]
        assert own == list(range(each))
