"""Promotions against a real ledger and a real MLflow store: what may move an alias, and back."""

import json
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from governance.canonical import tree_digest
from governance.errors import AuricleError, GateRefused, TamperError
from governance.records import StageRecord, write_record
from governance.registry import Registry
from pipelines import _champion as champion
from pipelines import _paths as paths
from pipelines.promote import promote_newest, promote_version
from tests.support_workspace import command

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent.parent
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with four versions; its first migration takes many seconds."""
    folder = tmp_path_factory.mktemp("store")
    registry = Registry(folder / "mlflow.db", folder / "artifacts")
    (folder / "file").write_text("bytes")
    run = registry.start_run("auricle", "train", {})
    registry.log_artifacts(run, folder / "file", "bundle")
    for _ in range(4):
        registry.register_version("auricle", run, "bundle", {}, "")
    return folder / "mlflow.db"


class House:
    """A workspace whose `package` stage this test plays."""

    def package(self, version: int, *, compared_with: int | None, **changes: Any) -> None:
        """The stage's report and its ledger event for int8 as `version`; fp32 was not chosen."""
        events = {
            "int8": self.body(version, compared_with=compared_with, **changes),
            "fp32": self.body(4, variant="fp32", chosen=False, bento="", refusals=["wer: bad"]),
        }
        self.report(events)
        for body in events.values():
            if champion.newest_packages().get(body["version"]) != body:
                champion.open_ledger().append("package", body, actor="pipeline")

    def report(self, events: Mapping[str, Any]) -> None:
        record = StageRecord(
            stage="package", figures={"events": dict(events)}, started_at="now", wall_s=0
        )
        write_record(paths.report("package"), record)

    def body(self, version: int, **changes: Any) -> dict[str, Any]:
        bundle = paths.MLFLOW_ARTIFACTS / f"v{version}"
        bundle.mkdir(parents=True, exist_ok=True)
        (bundle / "bundle.json").write_text(f"bytes of {version}")
        bento = paths.BENTO_ROOT / "home" / "bentos" / "auricle" / f"b{version}"
        bento.mkdir(parents=True, exist_ok=True)
        return {
            "model": "auricle",
            "version": version,
            "variant": "int8",
            "run_id": "run",
            "bundle": bundle.as_posix(),
            "records": "records",
            "bundle_digest": tree_digest(bundle),
            "bento": f"auricle:b{version}",
            "chosen": True,
            "passed": True,
            "refusals": [],
            "policy": "sha256:policy",
            "judged_alias": "champion",
            "compared_with": None,
            "domain": "noise",
        } | changes

    def standing(self, alias: str = "champion") -> int | None:
        """What the ledger says; MLflow must say the same."""
        found = champion.promotions("auricle", alias)
        version = found[-1].body["version"] if found else None
        registry = Registry(paths.MLFLOW_DB, paths.MLFLOW_ARTIFACTS)
        assert registry.aliases("auricle").get(alias) == version
        return version


@pytest.fixture
def house(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    paths.MLFLOW_DB.parent.mkdir(parents=True)
    shutil.copyfile(store, paths.MLFLOW_DB)
    paths.REPORTS.mkdir(parents=True)
    return House()


def test_the_chosen_version_is_promoted_once(house: House) -> None:
    house.package(1, compared_with=None)
    assert promote_newest(actor="owner")["policy"] == "sha256:policy"
    assert promote_newest(actor="owner")["version"] == 1
    assert house.standing() == 1 and len(champion.promotions("auricle", "champion")) == 1


def test_a_report_that_refuses_is_not_overruled_by_an_older_event(house: House) -> None:
    """A verdict that DVC brought back from its cache: the ledger still holds the milder one."""
    house.package(1, compared_with=None)
    refused = house.body(1, passed=False, chosen=False, bento="", refusals=["wer: bad"])
    house.report({"int8": refused, "fp32": champion.packaged()["fp32"]})
    for promote in (
        lambda: promote_newest(actor="owner"),
        lambda: promote_version(1, alias="champion", actor="owner"),
    ):
        with pytest.raises(AuricleError, match="says otherwise about version 1") as caught:
            promote()
        assert caught.value.mend == "`auricle run --again package`"
    assert house.standing() is None
    house.package(1, compared_with=None, **{k: refused[k] for k in ("passed", "chosen", "bento")})
    with pytest.raises(GateRefused):
        promote_newest(actor="owner")


def test_a_clone_is_told_to_package_again(house: House, capsys: Capture) -> None:
    """After `dvc pull` the report is there; ledger, MLflow and bentos are another machine's."""
    house.package(1, compared_with=None)
    assert champion.packaged_here()
    shutil.rmtree(paths.BENTO_ROOT)
    assert not champion.packaged_here()
    paths.LEDGER.unlink()
    assert not champion.packaged_here()
    for arguments in (["promote"], ["up"], ["transcribe", "a.wav"]):
        status, out, err = command(capsys, *arguments)
        assert (status, out) == (2, "") and "`auricle run --again package`" in err, arguments


def test_nothing_packaged_is_not_packaged_here(house: House) -> None:
    assert not champion.packaged_here() and champion.packaged() == {}


def test_a_missing_bento_is_not_promoted(house: House) -> None:
    house.package(1, compared_with=None)
    shutil.rmtree(paths.BENTO_ROOT)
    with pytest.raises(AuricleError, match="its bento is not on this machine"):
        promote_newest(actor="owner")
    assert house.standing() is None


def test_the_verdict_must_have_compared_with_what_stands_there(house: House) -> None:
    house.package(1, compared_with=None)
    promote_newest(actor="owner")
    house.package(2, compared_with=None)
    with pytest.raises(GateRefused, match="but version 1 stands there now"):
        promote_newest(actor="owner")
    house.package(2, compared_with=1)
    promote_newest(actor="owner")
    assert house.standing() == 2


def test_an_alias_that_no_gate_judged_needs_no_comparison(house: House) -> None:
    house.package(1, compared_with=None)
    promote_newest(actor="owner")
    house.package(2, compared_with=1)
    promote_newest(alias="staging", actor="owner")
    house.package(3, compared_with=1)
    promote_newest(alias="staging", actor="owner")
    assert (house.standing("staging"), house.standing()) == (3, 1)


def test_lineage_takes_a_bare_name_and_lists_what_it_knows(house: House, capsys: Capture) -> None:
    house.package(1, compared_with=None)
    for arguments in (["lineage"], ["lineage", "other"]):
        status, out, err = command(capsys, *arguments)
        assert (status, out) == (2, "") and "holds no promotion yet. Mend: `make demo`" in err
    promote_newest(actor="owner")
    promote_newest(alias="staging", actor="owner")
    _, whole, _ = command(capsys, "lineage", "auricle@champion")
    assert whole.startswith("auricle@champion")
    assert command(capsys, "lineage", "auricle")[1] == whole  # a name, not a file of this folder
    for unknown, named in (("auricle@foo", "auricle@foo"), ("bar", "bar@champion")):
        status, out, err = command(capsys, "lineage", unknown)
        assert (status, out) == (2, "")
        assert err == (
            f"auricle: {named}: the ledger knows no such promotion. "
            "Mend: one of auricle@champion, auricle@staging\n"
        )


def test_back_to_a_version_that_stood_there(house: House, capsys: Capture) -> None:
    house.package(1, compared_with=None)
    promote_newest(actor="owner")
    house.package(2, compared_with=1)
    promote_newest(actor="owner")
    arguments = ["promote", "--version", "1", "--reason", "worse on calls", "--actor", "owner"]
    status, out, err = command(capsys, *arguments, "--json")
    event = json.loads(out)
    assert status == 0, err
    assert (event["version"], event["rollback_from"]) == (1, 2)
    assert event["reason"] == "worse on calls" and house.standing() == 1
    assert champion.open_ledger().verify().unanchored_tail == 0
    status, out, _ = command(capsys, "audit", "list")
    assert "rollback_from=2 reason=worse on calls" in out.splitlines()[-1]
    # again: nothing to do; and the newest does not come back by itself, only by its number
    events = len(champion.promotions("auricle", "champion"))
    assert promote_version(1, alias="champion", actor="owner")["version"] == 1
    assert len(champion.promotions("auricle", "champion")) == events
    with pytest.raises(GateRefused, match="version 1 was put back in its place"):
        promote_newest(actor="demo")
    promote_version(2, alias="champion", actor="owner")
    assert house.standing() == 2


def test_a_rollback_always_has_a_reason(house: House) -> None:
    house.package(1, compared_with=None)
    promote_newest(actor="owner")
    house.package(2, compared_with=1)
    promote_newest(actor="owner")
    event = promote_version(1, alias="champion", actor="owner")
    assert event["reason"].startswith("back to version 1, promoted at ")


def test_an_older_version_that_never_stood_there_is_refused(house: House) -> None:
    house.package(1, compared_with=None)
    house.package(2, compared_with=None)
    with pytest.raises(AuricleError, match="never stood behind 'champion'"):
        promote_version(1, alias="champion", actor="owner")
    with pytest.raises(AuricleError, match="knows no such version"):
        promote_version(99, alias="champion", actor="owner")
    with pytest.raises(AuricleError, match="has no bento"):
        promote_version(4, alias="champion", actor="owner")
    assert house.standing() is None


def test_other_bytes_in_the_champions_place_are_refused(house: House, capsys: Capture) -> None:
    house.package(1, compared_with=None)
    promote_newest(actor="owner")
    folder = champion.resolve("auricle@champion")
    assert champion.version_of("auricle@champion") == "1"
    (folder / "bundle.json").write_text("bytes of the next candidate")
    with pytest.raises(TamperError, match="the ledger names"):
        champion.resolve("auricle@champion")
    for arguments in (["transcribe", "a.wav"], ["serve"], ["lineage"]):
        status, out, err = command(capsys, *arguments)
        assert status == 2 and (not out or arguments == ["lineage"])
        assert str(folder) in err and "Mend: " in err


def test_an_edited_event_of_any_kind_stops_every_reader(house: House, capsys: Capture) -> None:
    """The promotion itself is untouched; what it rests on is not."""
    house.package(1, compared_with=None)
    promote_newest(actor="owner")
    with sqlite3.connect(paths.LEDGER) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute(
            "UPDATE events SET body = replace(body, 'noise', 'speech') WHERE seq = 1"
        )
    connection.close()
    for arguments in (["promote"], ["lineage"], ["transcribe", "a.wav"], ["up"]):
        status, out, err = command(capsys, *arguments)
        assert (status, out) == (2, "") and "event 1 was edited" in err, arguments


def test_equal_bytes_of_the_pipeline_stand_in_for_a_lost_copy(house: House) -> None:
    house.package(1, compared_with=None)
    promote_newest(actor="owner")
    folder, own = champion.resolve("auricle@champion"), paths.MODELS / "int8"
    shutil.move(folder, own)
    assert champion.resolve("auricle@champion") == own
    (own / "bundle.json").write_text("the next candidate")
    with pytest.raises(AuricleError, match="gone from this machine"):
        champion.resolve("auricle@champion")
