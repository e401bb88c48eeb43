"""A real service and a real, headless Chromium whose microphone is a file."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.client import Client
from serving.packaging.launch import serve_command, serve_environment
from tests.support_packages import installed

_START_LIMIT_S = 120


@contextmanager
def served(bundle_dir: Path, home: Path, **variables: str) -> Iterator[Client]:
    """BentoML serving this tree, as `auricle serve` does; its log lies in ``home``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = serve_environment(os.environ, bundle_dir=bundle_dir, bentoml_home=home)
    log = home / "service.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            serve_command(port=port),
            env=environment | variables,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    client = Client(url=f"http://127.0.0.1:{port}")
    try:
        client.wait_ready(_START_LIMIT_S, alive=lambda: process.poll() is None)
        yield client
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@contextmanager
def chromium(microphone: Path) -> Iterator[Any]:
    """Playwright's handle of Debian's Chromium; what its microphone hears is the WAV file."""
    from playwright.sync_api import sync_playwright

    program = installed("browser.sh").splitlines()[-1]
    arguments = [
        "--no-sandbox",  # root in a container; the page is our own
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    ]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()
