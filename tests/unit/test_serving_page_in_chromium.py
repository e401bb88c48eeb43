"""The page in a real browser: a microphone, a dropped file, the keyboard, and nobody else asked."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.client import Client
from serving.page.snippets import snippets
from serving.tenants.caller import SCOPES
from serving.tenants.store import KeyStore
from tests.support_browser import chromium, served
from tests.support_bundle import babble, hush, make_bundle
from tests.support_packages import interpreter, without_python
from tests.support_service import wav

SPEECH = np.concatenate([babble(2.5), hush(1.5), babble(1.5, seed=5), hush(1.5)])
PATIENCE_MS = 30_000
pytestmark = pytest.mark.slow


@dataclass(kw_only=True)
class Visit:
    """An open page, and everything that it said and asked."""

    page: Any
    client: Client
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def words(self) -> list[str]:
        return [str(word) for word in self.page.locator("button.word").all_inner_texts()]

    def is_clean(self) -> bool:
        """Nothing on the console, nobody asked but the service."""
        local = (self.client.url, self.client.url.replace("http", "ws"), "blob:")
        return not self.said and all(address.startswith(local) for address in self.asked)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "recording.wav"
    path.write_bytes(wav(SPEECH))
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    bundle_dir = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    with served(bundle_dir, tmp_path_factory.mktemp("home")) as client:
        yield client


@pytest.fixture(scope="module")
def browser(recording: Path) -> Iterator[Any]:
    with chromium(recording) as browser:
        yield browser


@pytest.fixture(params=["light"])
def visit(request: pytest.FixtureRequest, browser: Any, service: Client) -> Iterator[Visit]:
    context = browser.new_context(
        color_scheme=request.param,
        viewport={"width": 1180, "height": 900},
        permissions=["microphone", "clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(PATIENCE_MS)
    found = Visit(page=context.new_page(), client=service)
    found.page.on("console", lambda message: found.said.append(message.text))
    found.page.on("pageerror", lambda error: found.said.append(str(error)))
    found.page.on("request", lambda asked: found.asked.append(asked.url))
    found.page.on("websocket", lambda socket: found.asked.append(socket.url))
    found.page.goto(service.url)
    found.page.wait_for_selector("#tabs button")
    yield found
    context.close()


def test_a_dropped_file_becomes_words_with_times_that_can_be_played(
    visit: Visit, recording: Path, tmp_path: Path
) -> None:
    page = visit.page
    assert "noise" in page.inner_text("#purpose")  # what the tiny bundle was made for
    content = list(recording.read_bytes())
    transfer = page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "recording.wav"));
            return transfer;
        }""",
        content,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("button.word")
    expected = visit.client.transcribe(recording, model="tiny")
    assert visit.words() == [word.word for word in expected.words]
    assert "Done" in page.inner_text("#state") and "in all" in page.inner_text("#timing")

    last = page.locator("button.word").last
    page.locator("button.word").first.focus()
    page.keyboard.press("End")
    assert last.evaluate("word => word === document.activeElement")
    assert f"{expected.words[-1].start:.2f} to" in page.inner_text("#detail")
    page.keyboard.press("Enter")
    page.wait_for_selector("button.word[data-now=true]")
    assert (
        page.evaluate("document.getElementById('player').currentTime") >= expected.words[-1].start
    )

    with page.expect_download() as download:
        page.click("#save")
    assert expected.audio_digest in Path(download.value.path()).read_text()
    page.click("#copy-text")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.split() == expected.text.split()
    page.screenshot(path=tmp_path / "file.png", full_page=True)
    assert (tmp_path / "file.png").stat().st_size > 20_000
    assert visit.is_clean(), (visit.said, visit.asked)


def test_the_microphone_gives_partials_and_then_finals(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.focus("#record")
    page.keyboard.press("Enter")
    page.wait_for_selector("#record[data-live=true][aria-disabled=false]")
    page.wait_for_selector(".partial")
    page.screenshot(path=tmp_path / "live.png", full_page=True)
    page.wait_for_selector("button.word")
    page.keyboard.press("Enter")  # the focus is still where it was
    page.wait_for_selector("#state:has-text('Done')")
    assert visit.words() and page.locator(".partial").count() == 0
    assert page.is_visible("#player") and page.is_hidden("#problem")
    assert page.evaluate("document.getElementById('player').duration") > 1
    sockets = [address for address in visit.asked if address.startswith("ws")]
    assert len(sockets) == 1 and "encoding=linear16" in sockets[0]
    assert visit.is_clean(), (visit.said, visit.asked)


def test_what_goes_wrong_is_said_in_words(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    (tmp_path / "letter.txt").write_text("no sound at all")
    page.set_input_files("#file", tmp_path / "letter.txt")
    page.wait_for_selector("#problem:not([hidden])")
    told = page.inner_text("#problem")
    assert "refused the recording" in told and "letter.txt" in told
    page.click("#problem-close")
    assert page.is_hidden("#problem")

    page.context.set_offline(True)
    page.click("#record")
    page.wait_for_selector("#problem:not([hidden])")
    assert "cannot be reached" in page.inner_text("#problem")
    page.wait_for_selector("#record[data-live=false][aria-disabled=false]")


@pytest.mark.parametrize("visit", ["light", "dark"], indirect=True)
def test_nothing_stands_in_the_way_of_a_screen_reader_or_weak_eyes(
    visit: Visit, recording: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit.page
    page.emulate_media(reduced_motion="reduce")
    page.set_input_files("#file", recording)
    page.wait_for_selector("button.word")
    found = Axe().run(page)
    assert not found.violations_count, found.generate_report()
    page.goto(f"{visit.client.url}/docs")
    page.wait_for_selector(".toc a")
    found = Axe().run(page)
    assert not found.violations_count, found.generate_report()
    assert page.locator(".toc a").count() > 10
    assert "/v1/audio/transcriptions" in page.inner_text("main")
    assert visit.is_clean(), (visit.said, visit.asked)


def test_the_operators_own_page_needs_no_key_typed(
    browser: Any, recording: Path, tmp_path: Path
) -> None:
    store = KeyStore(tmp_path / "keys.sqlite", create=True)
    (tmp_path / "key").write_text(store.create("default", SCOPES, near=True).text)
    variables = {
        "AURICLE_KEYS": str(tmp_path / "keys.sqlite"), "AURICLE_PAGE_KEY": str(tmp_path / "key"),
    }  # fmt: skip
    bundle_dir = make_bundle(tmp_path / "tiny")
    with served(bundle_dir, tmp_path, **variables) as client:
        context = browser.new_context(permissions=["microphone"])
        page = context.new_page()
        page.goto(f"{client.url}/")
        page.wait_for_selector("#record[aria-disabled=false]")
        page.set_input_files("#file", recording)
        page.wait_for_selector("button.word")  # a file, then a stream
        page.click("#record")
        page.wait_for_selector("#record[data-live=true]")
        assert page.is_hidden("#key-form") and page.is_hidden("#problem")
        context.close()


def test_the_snippets_run_as_they_are_shown(visit: Visit, recording: Path, tmp_path: Path) -> None:
    shown = visit.page.locator("#snippets pre").all_text_contents()
    own = [snippet.filled(origin=visit.client.url, model="tiny") for snippet in snippets()]
    assert shown == own
    expected = visit.client.transcribe(recording, model="tiny").text
    deepgram = interpreter("deepgram-7.17")
    code = dict(zip((snippet.id for snippet in snippets()), own, strict=True))
    commands = {
        "curl": ["bash", "-c", code["curl"]],
        "openai": [sys.executable, "-c", code["openai"]],
        "javascript": ["node", "--input-type=module", "-e", code["javascript"]],
        "deepgram": [deepgram, "-c", code["deepgram"]],
    }
    assert commands.keys() == code.keys()
    for name, command in commands.items():
        done = subprocess.run(
            command,
            cwd=recording.parent,
            env=without_python(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (name, done.stderr)
        said = " ".join(
            line.removeprefix("final").strip()
            for line in done.stdout.splitlines()
            if name != "deepgram" or line.startswith("final")
        )
        assert expected in said, name
