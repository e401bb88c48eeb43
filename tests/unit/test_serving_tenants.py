"""Keys at rest, tokens, token buckets and usage: the rules, apart from HTTP."""

import base64
import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.errors import AuricleError, ConfigError
from serving.problems import ApiProblem
from serving.tenants.access import AccessLog, access_ledger
from serving.tenants.authenticator import Authenticator
from serving.tenants.caller import ANYBODY, SCOPES
from serving.tenants.credentials import read_key, read_token, sign_token
from serving.tenants.desk import TenantDesk, budget_headers
from serving.tenants.policy import Limits, TenantPolicy
from serving.tenants.store import KeyStore
from serving.tenants.usage import UsageStore


class Clock:
    def __init__(self, now: float = 1_795_600_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> KeyStore:
    return KeyStore(tmp_path / "keys.sqlite", create=True, clock=clock)


def refused(authenticator: Authenticator, credential: str) -> str:
    with pytest.raises(ApiProblem) as problem:
        authenticator.identify(credential)
    assert problem.value.status == 401 and problem.value.code == "invalid_api_key"
    assert credential not in problem.value.message or not credential
    return problem.value.message


def test_a_key_is_known_by_its_hash_only(store: KeyStore, tmp_path: Path) -> None:
    issued = store.create("acme", ["transcribe", "listen"], name="app")
    key = read_key(issued.text)
    assert key is not None and len(key.secret) == 43
    assert issued.text not in repr(issued) and key.secret not in repr(key)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        assert key.secret.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0 or path.name.endswith(("-wal", "-shm"))
    caller = Authenticator(store).identify(issued.text).caller
    assert (caller.tenant, caller.scopes) == ("acme", {"transcribe", "listen"})
    assert caller.key_id == issued.record.id and not caller.granted


def test_a_stolen_database_verifies_nothing_without_the_server_secret(
    store: KeyStore, tmp_path: Path
) -> None:
    issued = store.create("acme", ["listen"])
    store.close()
    (tmp_path / "keys.secret").unlink()
    with pytest.raises(ConfigError, match="server secret is missing"):
        KeyStore(tmp_path / "keys.sqlite")
    secret = tmp_path / "keys.secret"
    secret.write_bytes(bytes(32))
    secret.chmod(0o600)
    refused(Authenticator(KeyStore(tmp_path / "keys.sqlite")), issued.text)
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        KeyStore(tmp_path / "keys.sqlite")


@given(st.text(max_size=200))
def test_no_text_but_a_key_is_a_key(text: str) -> None:
    key = read_key(text)
    assert key is None or key.text() == text
    assert read_token(text, bytes(32)) is None


def test_one_wrong_character_is_a_wrong_key(store: KeyStore) -> None:
    authenticator = Authenticator(store)
    text = store.create("acme", ["listen"]).text
    other = store.create("acme", ["listen"]).text
    for at in (9, 25, len(text) - 1):
        swapped = text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]
        refused(authenticator, swapped)
    refused(authenticator, text[:21] + other[21:])  # the id of one, the secret of another
    refused(authenticator, "")
    refused(authenticator, "sk-" + "x" * 48)


def test_revocation_by_another_process_holds_at_the_next_use(
    store: KeyStore, tmp_path: Path
) -> None:
    text = store.create("acme", ["listen"]).text
    authenticator = Authenticator(KeyStore(tmp_path / "keys.sqlite"))
    assert authenticator.identify(text) is authenticator.identify(text)  # remembered
    store.revoke(text.split("_")[1])
    assert refused(authenticator, text) == "Incorrect API key provided."


def test_expiry_and_rotation_with_overlap(store: KeyStore, clock: Clock) -> None:
    authenticator = Authenticator(store)
    first = store.create("acme", ["jobs"], lifetime_s=1000)
    second = store.rotate(first.record.id, overlap_s=60, lifetime_s=None)
    store_view = Authenticator(store)
    assert store_view.identify(first.text).caller.scopes == {"jobs"}
    assert second.record.rotated_from == first.record.id
    clock.now += 61
    assert "expired" in refused(store_view, first.text)
    assert authenticator.identify(second.text).caller.tenant == "acme"
    clock.now += 10_000_000
    assert authenticator.identify(second.text)
    with pytest.raises(ConfigError, match="expired"):
        store.rotate(first.record.id, overlap_s=0, lifetime_s=None)
    with pytest.raises(ConfigError, match="no such key"):
        store.revoke("0" * 12)


@pytest.mark.parametrize("scopes", [[], ["everything"], ["listen", "root"]])
def test_unknown_scopes_and_tenants_are_refused(store: KeyStore, scopes: list[str]) -> None:
    with pytest.raises(ConfigError):
        store.create("acme", scopes)
    with pytest.raises(ConfigError):
        store.create("../acme", ["listen"])


def test_a_token_is_narrower_than_its_key_and_ends(store: KeyStore, clock: Clock) -> None:
    authenticator = Authenticator(store)
    key = authenticator.identify(store.create("acme", sorted(SCOPES)).text).caller
    token = authenticator.grant(key, ttl_s=30, scopes=None)
    granted = authenticator.identify(token).caller
    assert granted.scopes == {"transcribe", "listen"} and granted.granted
    assert (granted.tenant, granted.key_id) == ("acme", key.key_id)
    assert authenticator.identify(
        authenticator.grant(key, ttl_s=30, scopes=["unredacted", "listen"])
    ).caller.scopes == {"unredacted", "listen"}
    for scopes in (["admin"], [], ["listen", "root"]):
        with pytest.raises(ApiProblem, match="scopes of its key"):
            authenticator.grant(key, ttl_s=30, scopes=scopes)
    for caller in (granted, ANYBODY):
        with pytest.raises(ApiProblem, match="to an API key only"):
            authenticator.grant(caller, ttl_s=30, scopes=None)
    clock.now += 31
    refused(authenticator, token)


def test_a_token_falls_with_its_key(store: KeyStore, tmp_path: Path, clock: Clock) -> None:
    reader = Authenticator(KeyStore(tmp_path / "keys.sqlite", clock=clock))
    issued = store.create("acme", ["listen"])
    token = reader.grant(reader.identify(issued.text).caller, ttl_s=600, scopes=None)
    assert reader.identify(token)
    store.revoke(issued.record.id)
    refused(reader, token)


def test_a_token_that_was_touched_is_none() -> None:
    secret = bytes(range(32))
    token = sign_token({"sub": "acme", "exp": 1.0}, secret)
    assert read_token(token, secret) == {"sub": "acme", "exp": 1.0}
    head, body, signature = token.split(".")
    forged = base64.urlsafe_b64encode(json.dumps({"sub": "other", "exp": 9e9}).encode()).decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    for text in (
        f"{head}.{forged.rstrip('=')}.{signature}", f"{none}.{body}.", f"{head}.{body}.",
        f"{none}.{body}.{signature}", token[:-2], token + "a",
    ):  # fmt: skip
        assert read_token(text, secret) is None
    assert read_token(token, bytes(32)) is None


def test_the_memory_of_credentials_is_bounded(store: KeyStore) -> None:
    authenticator = Authenticator(store)
    key = authenticator.identify(store.create("acme", ["listen"]).text).caller
    for number in range(5000):
        authenticator.identify(authenticator.grant(key, ttl_s=1 + number % 3600, scopes=None))
    assert len(authenticator._known) <= 4096


def test_what_a_tenant_may_is_kept(store: KeyStore) -> None:
    assert store.tenant("acme") == TenantPolicy()
    policy = TenantPolicy(limits=Limits(streams=2, audio_s_per_day=60.5), redact="pci")
    store.set_tenant("acme", policy)
    assert store.tenant("acme") == policy
    text = store.create("acme", ["listen"]).text
    assert Authenticator(store).identify(text).caller.redact == "pci"
    with pytest.raises(ConfigError, match="above 0"):
        Limits(streams=0)


@pytest.fixture
def usage(tmp_path: Path, clock: Clock) -> UsageStore:
    return UsageStore(tmp_path / "usage.sqlite", clock=clock)


def admitted(usage: UsageStore, limits: Limits, tenant: str = "acme") -> bool:
    return not any(b.wait_s for b in usage.admit(tenant, limits, route="transcriptions"))


def test_a_token_bucket_empties_and_fills(usage: UsageStore, clock: Clock) -> None:
    limits = Limits(requests_per_minute=3)
    assert [admitted(usage, limits) for _ in range(4)] == [True, True, True, False]
    assert admitted(usage, limits, tenant="other")
    (budget,) = usage.admit("acme", limits, route="transcriptions")
    assert budget.wait_s == pytest.approx(20.0) and budget.reset_s == pytest.approx(60.0)
    clock.now += 20.01
    assert admitted(usage, limits) and not admitted(usage, limits)
    (row,) = usage.rows("acme", first_day="0", last_day="9")
    assert row.requests == 4  # what was refused was not used


def test_audio_may_overdraw_once_and_is_paid_back(usage: UsageStore, clock: Clock) -> None:
    limits = Limits(audio_s_per_minute=60)
    assert admitted(usage, limits)
    usage.hear("acme", limits, 90.0, route="transcriptions")
    assert not admitted(usage, limits)
    clock.now += 29.9
    assert not admitted(usage, limits)
    clock.now += 0.2
    assert admitted(usage, limits)


def test_quotas_end_with_the_day_and_the_month(usage: UsageStore, clock: Clock) -> None:
    limits = Limits(audio_s_per_day=10, audio_s_per_month=15)
    usage.hear("acme", limits, 10.0, route="listen")
    assert not admitted(usage, limits)
    clock.now += 86_400
    assert admitted(usage, limits)
    usage.hear("acme", limits, 6.0, route="listen")
    clock.now += 86_400
    budgets = usage.admit("acme", limits, route="listen")
    assert [b.kind for b in budgets if b.wait_s] == ["audio-seconds-month"]
    clock.now += 31 * 86_400
    assert admitted(usage, limits)


def test_usage_survives_a_restart_and_is_exact_over_processes(
    usage: UsageStore, tmp_path: Path, clock: Clock
) -> None:
    second = UsageStore(tmp_path / "usage.sqlite", clock=clock)
    limits = Limits(requests_per_minute=5)
    assert sum(admitted(store, limits) for store in (usage, second) * 4) == 5
    usage.hear("acme", limits, 1.5, route="listen")
    second.hear("acme", limits, 2.0, route="listen")
    usage.close()
    rows = UsageStore(tmp_path / "usage.sqlite", clock=clock).rows(
        "acme", first_day="0", last_day="9"
    )
    assert [(row.route, row.requests, row.audio_s) for row in rows] == [
        ("listen", 0, 3.5), ("transcriptions", 5, 0.0),
    ]  # fmt: skip


def test_places_of_a_killed_process_are_free_again(usage: UsageStore, tmp_path: Path) -> None:
    limits = Limits(streams=2)
    places = [usage.open_stream("acme", limits) for _ in range(3)]
    assert places[0] is not None and places[1] is not None and places[2] is None
    usage.close_stream(places[0])
    assert usage.open_stream("acme", limits) is not None
    with sqlite3.connect(tmp_path / "usage.sqlite") as connection:
        connection.execute("UPDATE streams SET pid = 4194399")  # no process has this number
    connection.close()
    assert usage.open_stream("acme", limits) is not None and usage.streams("acme") == 1


def test_headers_are_those_of_openai(usage: UsageStore, clock: Clock) -> None:
    limits = Limits(requests_per_minute=60, audio_s_per_minute=600)
    headers = budget_headers(usage.admit("acme", limits, route="transcriptions"))
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    assert headers["x-ratelimit-limit-audio-seconds"] == "600"


def test_a_stream_is_refused_while_it_goes_on_and_a_finished_file_is_not(
    tmp_path: Path, clock: Clock
) -> None:
    from serving.tenants.meter import heard

    store = KeyStore(tmp_path / "keys.sqlite", create=True)
    store.set_tenant("acme", TenantPolicy(limits=Limits(audio_s_per_day=10)))
    text = store.create("acme", ["listen"]).text
    desk = TenantDesk(tmp_path / "keys.sqlite")
    identity = desk.identify(text)
    with desk.admitted(identity, route="transcriptions", live=False):
        heard(9.0, live=False)
    with pytest.raises(ApiProblem) as problem, desk.admitted(identity, route="listen", live=True):
        heard(1.0, live=True)  # not booked yet: too short a step
        heard(1.5, live=True)
    assert problem.value.status == 429 and problem.value.code == "insufficient_quota"
    assert desk.usage is not None and desk.usage.streams("acme") == 0
    heard(5.0, live=True)  # outside of any request: nobody's
    with desk.booked("acme", route="jobs"):
        heard(3.0, live=False)
    assert sum(r.audio_s for r in desk.usage.rows("acme", first_day="0", last_day="9")) == 14.5
    desk.close()


def test_access_is_chained_and_signed(tmp_path: Path) -> None:
    log = AccessLog(tmp_path)
    for _ in range(20):
        log.note("access", ANYBODY, route="listen", scope="listen")
    log.close()
    ledger = access_ledger(tmp_path)
    (path,) = tmp_path.glob("access-*.sqlite")
    assert ledger.verify().ok and len(ledger.events()) == 20
    assert ledger.events()[0].body == {
        "tenant": "default", "route": "listen", "scope": "listen", "granted": False,
    }  # fmt: skip
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("UPDATE events SET actor = 'somebody' WHERE seq = 7")
    connection.close()
    assert not ledger.verify().ok and ledger.verify().first_bad == 7


def test_nobody_gets_in_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that cannot be written fills its queue, and then requests are refused."""
    blocked = tmp_path / "no-folder"
    blocked.write_text("a file stands where the folder should be")
    monkeypatch.setattr("serving.tenants.access._QUEUED", 5)
    log = AccessLog(blocked)
    with pytest.raises(ApiProblem, match="cannot be recorded") as problem:
        for _ in range(600):
            log.note("access", ANYBODY)
    assert problem.value.status == 503
    log._stopping.set()


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuricleError, match="no key store"):
        KeyStore(tmp_path / "none.sqlite")


def test_months_are_chains_of_their_own(tmp_path: Path) -> None:
    for month in ("2026-10", "2026-11"):
        access_ledger(tmp_path, month).append("access", {"route": month}, actor="key")
    (tmp_path / "access-2026-10.sqlite").unlink()  # archived
    november = access_ledger(tmp_path, "2026-11")
    assert november.verify().ok and november.events()[0].seq == 1
