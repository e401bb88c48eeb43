"""Schemathesis asks the running service whether it keeps what its OpenAPI document promises."""

from pathlib import Path

import pytest

from benchmarks._promises import checked
from serving.settings import JobSettings, ProtectionSettings
from serving.tenants.store import KeyStore
from tests.support_bundle import make_bundle
from tests.support_live import served

BENTOMLS = ("/livez", "/readyz")  # are not ours to answer, and not served here
LIMIT_S = 280.0


@pytest.mark.slow
@pytest.mark.parametrize("keyed", [False, True], ids=["open", "keyed"])
def test_every_promise_of_the_document_is_kept(tmp_path: Path, keyed: bool) -> None:
    protection, key = ProtectionSettings(), ""
    if keyed:
        path = tmp_path / "keys.sqlite"
        store = KeyStore(path, create=True)
        key = store.create("acme", ["transcribe", "listen", "jobs", "admin"]).text
        store.close()
        protection = ProtectionSettings(keys_path=path, records_dir=tmp_path / "records")
    jobs = JobSettings(folder=tmp_path / "jobs")
    with served(make_bundle(tmp_path / "tiny"), jobs=jobs, protection=protection) as (url, _):
        verdict = checked(url, examples=1, key=key, without=BENTOMLS, limit_s=LIMIT_S)
    assert verdict.status == 0, verdict.told
    assert verdict.cases > 300
