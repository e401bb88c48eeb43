"""The page's files as they are sent: closed list, strict policy, nothing foreign, carried along."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.packaging.bento import data_files
from serving.page.files import FOLDER, page_files
from serving.page.snippets import snippets
from tests.support_bundle import make_bundle
from tests.support_service import running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with running(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")) as (client, _):
        yield client


@pytest.mark.parametrize("path", ["/", "/docs", "/page/page.js", "/page/snippets.json"])
def test_every_answer_lets_nothing_foreign_in(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"https?:|\*|unsafe|data:", policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_names_no_other_server_and_runs_no_inline_code() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text()
        foreign = set(re.findall(r"https?://[\w.]+", text)) - {
            "http://www.w3.org",  # SVG's namespace, never fetched
            "http://localhost",  # in a sentence
        }
        assert not foreign, path.name
        assert "innerHTML" not in text and "eval(" not in text, path.name
        if path.suffix == ".html":
            assert not re.search(r"\son\w+=|style=|<script(?![^>]*\ssrc=)|<style", text), path.name


def test_what_the_pages_name_is_there(client: TestClient) -> None:
    named = {
        name
        for path in FOLDER.iterdir()
        for name in re.findall(r'["(](?:page/|\./)([\w.-]+\.(?:js|css|svg))', path.read_text())
    }
    assert {"page.js", "page.css", "live.js", "pcm-worklet.js", "docs.js"} <= named
    assert named <= page_files().keys()
    for name in named:
        assert client.get(f"/page/{name}").status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_what_pages_share_stands_in_each(client: TestClient, path: str) -> None:
    text = client.get(path).text
    assert ".part" not in text and text.count('href="page/page.css"') == 1
    assert text.count('class="brand"') == text.count('<meta charset="utf-8">') == 1
    assert client.get("/page/head.part").status_code == 404


def test_a_known_file_is_not_sent_twice(client: TestClient) -> None:
    first = client.get("/page/page.css")
    again = client.get("/page/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    stale = client.get("/page/page.css", headers={"If-None-Match": '"other"'})
    assert stale.status_code == 200 and stale.content == first.content


@pytest.mark.parametrize("name", ["nothing.js", "..%2Froutes.py", "%2e%2e/files.py", "__init__.py"])
def test_nothing_but_the_list_is_served(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


def test_snippets_are_filled_in_whole(client: TestClient) -> None:
    entries = client.get("/page/snippets.json").json()["snippets"]
    assert [entry["id"] for entry in entries] == ["curl", "openai", "deepgram", "javascript"]
    for snippet in snippets():
        code = snippet.filled(origin="http://127.0.0.1:3000", model="auricle")
        assert "http://127.0.0.1:3000" in code and "auricle" in code
        assert "{origin}" not in code and "{model}" not in code


def test_a_bento_carries_every_file_of_the_page() -> None:
    carried = {path.as_posix() for path in data_files(Path())}
    assert {path.as_posix() for path in Path("serving/page/static").iterdir()} <= carried
    assert {f"serving/page/static/{name}" for name in page_files()} <= carried
    assert {f"serving/page/snippets/{snippet.id}.txt" for snippet in snippets()} <= carried
    assert not any(path.endswith(".py") for path in carried)
