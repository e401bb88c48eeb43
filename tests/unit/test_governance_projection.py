from pathlib import Path

import pytest

from governance.ledger import Event, Ledger
from governance.projection import differences, drift, projected_aliases


@pytest.fixture
def events(tmp_path: Path) -> list[Event]:
    ledger = Ledger(tmp_path / "ledger.db", key_dir=tmp_path / "keys", clock=lambda: "now")
    for model, alias, version in (
        ("auricle", "champion", 1),
        ("auricle", "champion", 3),
        ("auricle", "candidate", 4),
        ("digits", "champion", 7),
        ("auricle", "champion", 2),  # a rollback is a promotion of an older version
    ):
        ledger.append("promote", {"model": model, "alias": alias, "version": version}, actor="me")
    ledger.append("gate", {"model": "auricle", "alias": "champion", "version": 9}, actor="me")
    return ledger.events()


def test_the_last_promotion_counts(events: list[Event]) -> None:
    assert projected_aliases(events, "auricle") == {"champion": 2, "candidate": 4}
    assert projected_aliases(events, "nobody") == {}


def test_agreement_is_no_difference(events: list[Event]) -> None:
    assert differences(events, "auricle", {"champion": 2, "candidate": 4}) == []
    actual = {"auricle": {"champion": 2, "candidate": 4}, "digits": {"champion": 7}}
    assert drift(events, actual) == []


def test_moved_deleted_and_invented_aliases_are_named_with_their_mend(
    events: list[Event],
) -> None:
    found = drift(events, {"auricle": {"champion": 3, "canary": 1}, "digits": {"champion": 7}})
    assert [str(difference) for difference in found] == [
        "auricle@canary: set by hand to version 1; the ledger knows no promotion to it",
        "auricle@candidate: deleted by hand; the ledger promoted version 4",
        "auricle@champion: moved by hand to version 3; the ledger promoted version 2",
    ]
    assert "version 4 again" in found[1].mend and "back to version 2" in found[2].mend


def test_a_model_that_the_registry_lost_is_named(events: list[Event]) -> None:
    actual = {"auricle": {"champion": 2, "candidate": 4}}
    assert [difference.model for difference in drift(events, actual)] == ["digits"]
