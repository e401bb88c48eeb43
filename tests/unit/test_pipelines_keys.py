"""``auricle keys`` at the command line, and where the service may be started without keys."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from governance.errors import ConfigError
from pipelines.cli import main
from serving.packaging.launch import require_protected, serve_command, told_host
from serving.packaging.tls import Tls
from serving.tenants.authenticator import Authenticator
from serving.tenants.store import KeyStore
from tests.support_tls import self_made


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "tenants" / "keys.sqlite")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["keys", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_key_from_its_making_to_its_end(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--json", "--store", store)
    (made,) = run(capsys, "create", "--tenant", "acme", "--scopes", "transcribe, jobs", "--name", "shop",
                  "--days", "30", *where)  # fmt: skip
    assert made["scopes"] == ["jobs", "transcribe"] and made["state"] == "active"
    assert Authenticator(KeyStore(Path(store))).identify(made["key"]).caller.tenant == "acme"
    (turned,) = run(capsys, "rotate", made["id"], "--overlap-hours", "0", *where)
    assert turned["rotated_from"] == made["id"] and turned["expires_at"] is None
    run(capsys, "revoke", turned["id"], *where)
    listed = run(capsys, "list", *where)
    assert [row["state"] for row in listed] == ["expired", "revoked"]
    assert not any("key" in row or made["key"] in str(row) for row in listed)
    events = run(capsys, "access", *where)
    assert [event["kind"] for event in events] == ["key_created", "key_rotated", "key_revoked"]
    secret = made["key"].rsplit("_", 1)[0]
    for path in Path(store).parent.rglob("*"):
        if path.is_file():
            assert made["key"].removeprefix(secret).encode() not in path.read_bytes()
    assert stat.S_IMODE(Path(store).stat().st_mode) == 0o600


def test_for_people_the_key_is_said_to_be_shown_once(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "--tenant", "acme", "--store", store]) == 0
    said = capsys.readouterr().out
    assert said.startswith("auricle_") and "only time" in said
    for action in ("list", "access"):
        assert main(["keys", action, "--store", store]) == 0
        assert said.split("\n")[0] not in capsys.readouterr().out


def test_what_a_tenant_may_is_set_and_taken_back(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--store", store)
    run(capsys, "create", "--tenant", "acme", "--json", *where)
    (policy,) = run(capsys, "tenant", "acme", "--streams", "3", "--audio-seconds-per-day", "60.5",
                    "--redact", "pci,ssn", "--redact-mode", "remove", *where)  # fmt: skip
    assert policy["limits"]["streams"] == 3 and policy["limits"]["audio_s_per_day"] == 60.5
    assert (policy["redact"], policy["redact_mode"]) == ("pci,ssn", "remove")
    (policy,) = run(capsys, "tenant", "acme", "--streams", "0", "--redact", "none", *where)
    assert policy["limits"]["streams"] is None and policy["redact"] == ""
    assert run(capsys, "usage", "acme", *where) == []


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--tenant", "acme", "--scopes", "everything"),
        ("create", "--tenant", "A B"),
        ("create", "--tenant", "acme", "--days", "-1"),
        ("revoke", "000000000000"),
        ("tenant", "acme", "--streams", "-2"),
        ("tenant", "acme", "--redact", "shoe_size"),
    ],
)
def test_what_cannot_be_is_said(
    store: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    KeyStore(Path(store), create=True).close()
    try:
        status: object = main(["keys", *words, "--store", store])
    except SystemExit as refused:  # what an option alone cannot be
        status = refused.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


def test_without_a_store_the_mend_is_named(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--store", store]) == 2
    assert "auricle keys create" in capsys.readouterr().err


def test_other_machines_need_keys() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        require_protected(host, {})
    for host in ("0.0.0.0", "::", "192.0.2.1", "service.example"):
        with pytest.raises(ConfigError, match="no key store"):
            require_protected(host, {})
        require_protected(host, {"AURICLE_KEYS": "keys.sqlite"})
        require_protected(host, {"AURICLE_OPEN": "1"})


def test_the_supervisors_address_is_read_wherever_it_was_said() -> None:
    serve = ["bentoml", "serve", "service:Auricle"]
    assert told_host([*serve, "--host", "0.0.0.0"], {}) == "0.0.0.0"
    assert told_host([*serve, "--host=::"], {"BENTOML_HOST": "127.0.0.1"}) == "::"
    assert told_host(serve, {"BENTOML_HOST": "0.0.0.0"}) == "0.0.0.0"
    assert told_host(serve, {}) == "127.0.0.1"
    assert told_host(["worker", "--fd", "3"], {"BENTOML_HOST": "0.0.0.0"}) is None


def test_tls_is_two_files_that_are_there(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    with pytest.raises(ConfigError, match="no such file"):
        Tls(certificate=certificate, key=key)
    for path in (certificate, key):
        path.write_text("-")
    with pytest.raises(ConfigError, match="cannot be used"):
        Tls(certificate=certificate, key=key)
    good = self_made(tmp_path)
    command = serve_command(tls=good)
    assert command[-4:] == [
        "--ssl-certfile", str(good.certificate), "--ssl-keyfile", str(good.key),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"must be 1\.2 or 1\.3"):
        Tls(certificate=good.certificate, key=good.key, minimum="1.1")
