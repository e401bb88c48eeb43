"""Deepgram's own SDKs, each with its own pins, stream speech to the service and parse its events."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.recognizer import AudioRequest
from serving.runtime import Runtime
from tests.support_bundle import babble, hush, make_bundle
from tests.support_live import served
from tests.support_packages import interpreter, without_python
from tests.support_service import pcm16, wav

ROOT = Path(__file__).resolve().parents[2]
SPEECH = np.concatenate([hush(0.5), babble(2.4), hush(2.5), babble(1.6, seed=5)])
QUERY = {
    "model": "auricle",
    "language": "en-US",
    "encoding": "linear16",
    "sample_rate": 16000,
    "channels": 1,
    "interim_results": True,
    "endpointing": 300,
    "utterance_end_ms": "1000",
    "vad_events": True,
}
SDKS = {
    "deepgram-4.8": "deepgram_4.py",
    "deepgram-5.3": "deepgram_5.py",
    "deepgram-7.17": "deepgram_5.py",
}
_LIMIT_S = 240


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Runtime]]:
    with served(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")) as pair:
        yield pair


@pytest.fixture(scope="module", params=SDKS)
def sdk(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The interpreter of an SDK's environment and the script to run in it."""
    name = str(request.param)
    return interpreter(name), str(ROOT / "tests" / "clients" / SDKS[name])


def talk(sdk: tuple[str, str], url: str, folder: Path, **choices: Any) -> list[list[Any]]:
    """What the SDK parsed, message by message: type, class, content."""
    sound = folder / "speech.pcm"
    sound.write_bytes(pcm16(SPEECH).tobytes())
    done = subprocess.run(
        [*sdk, url, str(sound), json.dumps({**QUERY, **choices})],
        capture_output=True,
        text=True,
        env=without_python(os.environ),
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_the_sdk_parses_every_event_of_real_audio(
    sdk: tuple[str, str], service: tuple[str, Runtime], tmp_path: Path
) -> None:
    url, runtime = service
    seen = talk(sdk, url, tmp_path)
    kinds = [kind for kind, _, _ in seen]
    assert set(kinds) == {"Results", "SpeechStarted", "UtteranceEnd", "Metadata"}
    assert not any(name in ("dict", "NoneType") for _, name, _ in seen)
    results = [document for kind, _, document in seen if kind == "Results"]
    finals = [document for document in results if document["is_final"]]
    (file,) = runtime.recognizer.recognize([AudioRequest(content=wav(SPEECH))])
    assert file.transcript is not None
    texts = [document["channel"]["alternatives"][0]["transcript"] for document in finals]
    assert " ".join(text for text in texts if text) == file.transcript.text
    assert any(not document["is_final"] for document in results)
    assert [document["speech_final"] for document in finals if document["from_finalize"]] == [True]
    words = [w for document in finals for w in document["channel"]["alternatives"][0]["words"]]
    assert all(0 < word["confidence"] <= 1 and word["start"] < word["end"] for word in words)
    assert len({word["confidence"] for word in words}) > 3
    assert finals[0]["metadata"]["model_info"]["name"] == "tiny"

    starts = [document["timestamp"] for kind, _, document in seen if kind == "SpeechStarted"]
    assert len(starts) == 2 and 0.4 < starts[0] < 1.2 and 5.3 < starts[1] < 6.2
    (end,) = [document for kind, _, document in seen if kind == "UtteranceEnd"]
    before = [word["end"] for word in words if word["end"] < 4.0]
    assert end["last_word_end"] == before[-1] and end["channel"] == [0, 1]
    assert kinds.index("SpeechStarted") < kinds.index("UtteranceEnd")
    (metadata,) = [document for kind, _, document in seen if kind == "Metadata"]
    assert metadata["duration"] == pytest.approx(7.0) and metadata["channels"] == 1
    assert kinds[-1] == "Metadata"


@pytest.mark.slow
def test_a_refusal_before_the_upgrade_is_the_sdks_own_error(
    sdk: tuple[str, str], service: tuple[str, Runtime], tmp_path: Path
) -> None:
    with pytest.raises(
        AssertionError, match=r"HTTP 400|status_code: 400|AssertionError|Unexpected"
    ):
        talk(sdk, service[0], tmp_path, smart_format=True)
