"""Rules and dashboards follow from the objectives and ask only for what a served process tells."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from governance.errors import AuricleError, ConfigError
from pipelines.slo import FOLDER, load, made
from serving.client import Client
from serving.observe.objectives import read_objectives
from serving.observe.rules import ALARMS, BURNS, anchor
from tests.support_browser import served
from tests.support_bundle import babble, make_bundle
from tests.support_service import pcm16, running, wav

ROOT = Path(__file__).resolve().parent.parent.parent
_SELECTOR = re.compile(r"(auricle_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
_CLOSED = ("mode", "le")  # labels whose every value can be seen in a short life


def expressions() -> list[tuple[str, str]]:
    """(where, PromQL) of every rule and every panel."""
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    found = [
        (rule.get("alert", rule.get("record")), rule["expr"])
        for group in groups
        for rule in group["rules"]
    ]
    for path in (FOLDER / "dashboards").iterdir():
        for panel in json.loads(path.read_text())["panels"]:
            found += [(panel["title"], target["expr"]) for target in panel["targets"]]
    return found


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Mapping[str, str]]]:
    """Label sets by sample name, of a served process that has done one thing of each kind."""
    folder = tmp_path_factory.mktemp("served")
    bundle_dir = make_bundle(folder / "tiny")
    (folder / "speech.wav").write_bytes(wav(babble(1.5)))
    with served(bundle_dir, folder, AURICLE_JOBS_DIR=str(folder / "jobs")) as client:
        client.transcribe(folder / "speech.wav", model="tiny")
        client.stream(pcm16(babble(1.5)).tobytes(), rate_hz=16_000)
        _job(client, folder / "speech.wav")
        text = client._request("GET", "/metrics", None, {})[1].decode()
    samples: dict[str, list[Mapping[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample.labels)
    return samples


def _job(client: Client, path: Path) -> None:
    from serving.client import _multipart

    kind, body = _multipart([("model", "tiny")], path)
    status, answer = client._request("POST", "/v1/jobs", body, {"Content-Type": kind})
    assert status == 202, answer
    while json.loads(answer)["status"] != "done":
        time.sleep(0.05)
        _, answer = client._request("GET", f"/v1/jobs/{json.loads(answer)['id']}", None, {})


def test_the_files_are_what_the_objectives_make() -> None:
    for name, text in made(load(FOLDER)).items():
        assert (FOLDER / name).read_text() == text, f"{name}: auricle slo --write"


@pytest.mark.slow
def test_every_metric_and_label_is_told_by_a_served_process(
    exposition: Mapping[str, list[Mapping[str, str]]],
) -> None:
    asked = set()
    for where, query in expressions():
        for name, matchers in _SELECTOR.findall(query):
            asked.add(name)
            assert name in exposition, f"{where}: no metric {name}"
            known = set().union(*(labels.keys() for labels in exposition[name]))
            for label, operator, value in _MATCHER.findall(matchers):
                assert label in known, f"{where}: {name} has no label {label}"
                if operator == "=" and label in _CLOSED:
                    assert value in {labels[label] for labels in exposition[name]}, (where, value)
        for grouped in re.findall(r"by \(([^)]*)\) \(rate\((auricle_\w+)", query):
            labels = set(grouped[0].split(", "))
            assert labels <= set().union(*(one.keys() for one in exposition[grouped[1]])), where
    assert len(asked) > 15
    for gauge in ("auricle_streams_open", "auricle_queue_depth"):
        assert all(labels["pid"].isdigit() for labels in exposition[gauge])


def test_every_alert_has_a_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.M)
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert {alert["alert"] for alert in alerts} == {one.alert for one in (*BURNS, *ALARMS)}
    assert set(headings) == {alert["alert"] for alert in alerts}
    for alert in alerts:
        assert alert["annotations"]["runbook"] == anchor(alert["alert"])
        assert alert["labels"]["severity"] in ("page", "ticket")


def test_burn_rates_are_the_workbooks() -> None:
    month_h = 30 * 24
    hours = {"h": 1, "d": 24}
    spent = [burn.rate * int(burn.long[:-1]) * hours[burn.long[-1]] / month_h for burn in BURNS]
    assert spent == pytest.approx([0.02, 0.05, 0.10, 0.10])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"objective": 1.0}, "objective"),
        ({"counter": "auricle_answers_total"}, "needs"),
        ({"unknown": 1}, "unknown"),
        ({"within": 0}, "needs"),
    ],
)
def test_a_wrong_objective_is_named(change: dict[str, Any], told: str) -> None:
    one = {"name": "lag", "promise": "p", "objective": 0.9, "histogram": "h", "within": 0.5}
    document = {"version": 1, "window_days": 30, "objectives": [one | change]}
    with pytest.raises(ConfigError, match=told):
        read_objectives(document, item="slo.yaml")


def test_objectives_that_cannot_be_read_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(AuricleError, match="cannot be read"):
        load(tmp_path)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")) as pair:
        yield pair


def test_every_answer_is_counted_once_by_its_status(service: Any) -> None:
    client, runtime = service

    def count(route: str, status: str) -> float:
        return float(runtime.metrics.answers.labels(route, status)._value.get())

    client.get("/v1/models")
    client.get("/v1/models/nobody")
    client.get("/../../etc/passwd")
    assert count("models", "200") == 1 and count("models", "404") == 1
    assert count("other", "404") == 1
    files = {"file": ("speech.wav", wav(babble(1.0)))}
    client.post("/v1/audio/transcriptions", data={"model": "tiny"}, files=files)
    client.post("/v1/audio/transcriptions", data={"model": "tiny"})
    assert count("transcriptions", "200") == 1 and count("transcriptions", "400") == 1
    with client.websocket_connect("/v1/listen?encoding=linear16&sample_rate=16000") as socket:
        socket.send_bytes(pcm16(babble(1.0)).tobytes())
        socket.send_text('{"type": "CloseStream"}')
        while socket.receive()["type"] != "websocket.close":
            pass
    assert count("listen", "1000") == 1
    with pytest.raises(Exception, match=""), client.websocket_connect("/v1/listen?tier=best"):
        pass
    assert count("listen", "400") == 1
    text = runtime.metrics.exposition().decode()
    for line in (
        'auricle_network_seconds_count{mode="file"} 1.0',
        'auricle_seconds_per_audio_second_count{mode="file"} 1.0',
        'auricle_delivery_seconds_count{mode="file"} 2.0',
    ):
        assert line in text
    lags = re.search(r"auricle_stream_lag_seconds_count (\d+)", text)
    assert lags is not None and int(lags[1]) > 0
    assert 'auricle_delivery_seconds_count{mode="stream"}' in text
