import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from features.priors import Prior, PriorKey, PriorView, channel_of, write_view
from governance.errors import ConfigError

MEAN_F = np.random.default_rng(5).standard_normal(80).astype(np.float32)


def key(speaker: str, *, tenant: str = "default", channel: str = "wide") -> PriorKey:
    return PriorKey(tenant=tenant, speaker=speaker, channel=channel, fingerprint="fs1-aaa")


def value(frames: int) -> bytes:
    return Prior(mean_F=MEAN_F + frames, frames=frames).to_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "view with space" / "priors.db"
    write_view(path, [(key(f"s{n}"), value(n)) for n in range(1, 50)])
    return path


def test_a_known_speaker_is_found_bit_for_bit(path: Path) -> None:
    prior = PriorView(path).lookup(key("s7"), deadline_ms=2000)
    assert prior is not None
    np.testing.assert_array_equal(prior.mean_F, MEAN_F + 7)
    assert prior.frames == 7
    assert prior.digest == Prior(mean_F=MEAN_F + 7, frames=7).digest
    assert prior.digest.startswith("sha256:")


@pytest.mark.parametrize(
    "unknown",
    [
        key("nobody"),
        key(""),
        key("s7", tenant="other"),
        key("s7", channel="narrow"),
        PriorKey(tenant="default", speaker="s7", channel="wide", fingerprint="fs1-bbb"),
    ],
)
def test_whoever_is_unknown_starts_cold(path: Path, unknown: PriorKey) -> None:
    assert PriorView(path).lookup(unknown, deadline_ms=2000) is None


def test_value_survives_its_bytes_and_odd_bytes_are_refused() -> None:
    prior = Prior(mean_F=MEAN_F, frames=123_456_789_012)
    back = Prior.from_bytes(prior.to_bytes())
    np.testing.assert_array_equal(back.mean_F, MEAN_F)
    assert back.frames == prior.frames
    for broken in (b"", b"12345678", prior.to_bytes()[:-1]):
        with pytest.raises(ConfigError, match="prior"):
            Prior.from_bytes(broken)


def test_equal_rows_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    rows = [(key(f"s{n}"), value(n)) for n in range(300)]
    first = write_view(tmp_path / "a.db", rows)
    second = write_view(tmp_path / "b.db", rows[::-1])
    assert first == second == PriorView(tmp_path / "a.db").digest
    assert first != write_view(tmp_path / "b.db", rows[1:])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "b.db"]


def test_one_key_twice_is_refused_and_the_old_view_stays(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="two rows for one key"):
        write_view(path, [(key("s1"), value(1)), (key("s1"), value(2))])
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["priors.db"]


def test_a_replaced_view_is_followed(path: Path) -> None:
    view = PriorView(path)
    assert view.lookup(key("s1"), deadline_ms=2000) is not None
    write_view(path, [(key("new"), value(3))])
    assert view.lookup(key("s1"), deadline_ms=2000) is None
    assert view.lookup(key("new"), deadline_ms=2000) is not None


def test_a_view_that_is_locked_means_cold(path: Path) -> None:
    view = PriorView(path)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    assert view.lookup(key("s1"), deadline_ms=50) is None  # and did not wait for the lock
    blocker.execute("ROLLBACK")
    blocker.close()
    assert view.lookup(key("s1"), deadline_ms=5000) is not None


def test_a_disk_that_hangs_means_cold(path: Path) -> None:
    view = PriorView(path)
    released = threading.Event()
    with view._lock:  # a reader that is stuck inside the disk holds exactly this
        waiter = threading.Thread(
            target=lambda: (view.lookup(key("s1"), deadline_ms=20), released.set())
        )
        waiter.start()
        assert released.wait(timeout=30)
    waiter.join()
    assert view.lookup(key("s1"), deadline_ms=5000) is not None


def test_no_time_at_all_means_cold(path: Path) -> None:
    assert PriorView(path).lookup(key("s1"), deadline_ms=0) is None


def test_a_view_that_vanishes_means_cold_and_a_new_one_is_found(path: Path) -> None:
    view = PriorView(path)
    kept = path.with_suffix(".kept")
    path.rename(kept)
    assert view.lookup(key("s1"), deadline_ms=2000) is None
    path.write_bytes(b"no database" * 100)
    assert view.lookup(key("s1"), deadline_ms=2000) is None
    kept.replace(path)
    assert view.lookup(key("s1"), deadline_ms=2000) is not None


def test_threads_share_a_view(path: Path) -> None:
    view = PriorView(path)
    found: list[int] = []

    def look(number: int) -> None:
        prior = view.lookup(key(f"s{number}"), deadline_ms=10_000)
        found.append(0 if prior is None else prior.frames)

    threads = [threading.Thread(target=look, args=(n,)) for n in range(1, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 30))
    view.close()


def test_missing_foreign_and_future_views_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.db"):
        PriorView(tmp_path / "none.db")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be read " * 20)
    with pytest.raises(ConfigError, match=r"text\.db"):
        PriorView(tmp_path / "text.db")
    sqlite3.connect(tmp_path / "empty.db").executescript("CREATE TABLE x (y)")
    with pytest.raises(ConfigError, match="schema 0, expected 1"):
        PriorView(tmp_path / "empty.db")


def test_telephone_rates_are_narrow() -> None:
    assert [channel_of(rate) for rate in (8000, 11_025, 16_000, 48_000)] == [
        "narrow",
        "wide",
        "wide",
        "wide",
    ]
