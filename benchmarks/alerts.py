"""Rules and dashboards in a real Prometheus (Debian's) that scrapes a served process.

    python -m benchmarks.alerts [--out benchmarks/results]

Three proofs. `promtool` accepts the rules. Days of made-up counters, played through Prometheus' own
rule engine, fire each burn-rate alert when it must, no other time, and not after the trouble is over.
A running Prometheus scrapes the service under load, evaluates every rule without an error, answers
every query of the dashboards, and `auricle slo` reads the budgets from it.
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from benchmarks._report import ROOT, Page, holds, parser, table
from benchmarks._service import service
from pipelines.processes import free_port
from pipelines.slo import FOLDER, load
from serving.observe.budget import Prometheus
from serving.observe.objectives import Objective
from serving.observe.rules import BURNS, RATIO, WINDOWS, anchor
from tests.support_bundle import babble, make_bundle
from tests.support_service import pcm16, wav

RULES = FOLDER / "rules.yaml"
_LIMIT_S = 120.0
_LOAD_S = 45.0  # longer than the rules' interval
_DAYS = 4 * 24 * 60  # minutes of a quiet series


@dataclass(frozen=True, kw_only=True)
class Story:
    """A share of bad events over time, and which alerts stand at its end."""

    what: str
    phases: Sequence[tuple[int, float]]  # (minutes, share of bad events)
    alerts: Sequence[str]


def stories(objective: Objective) -> list[Story]:
    """Told for each objective alike."""
    fast, burns, slow, leaks = (burn.alert for burn in BURNS)
    budget = objective.budget

    def at(times: float) -> float:
        return min(1.0, times * budget)

    return [
        Story(what="half the allowed errors, four days", phases=[(_DAYS, at(0.5))], alerts=[]),
        Story(
            what="20 times, an hour",
            phases=[(_DAYS, at(0.2)), (65, at(20))],
            alerts=[fast],
        ),
        Story(what="20 times, ten minutes", phases=[(_DAYS, at(0.2)), (10, at(20))], alerts=[]),
        Story(
            what="20 times, an hour; then ten minutes of peace",
            phases=[(_DAYS, at(0.2)), (65, at(20)), (10, 0.0)],
            alerts=[],
        ),
        Story(
            what="8 times, seven hours",
            phases=[(_DAYS, at(0.2)), (420, at(8))],
            alerts=[burns],
        ),
        Story(
            what="4 times, a day and a half",
            phases=[(_DAYS, at(0.2)), (36 * 60, at(4))],
            alerts=[slow, leaks],
        ),
        Story(
            what="1.5 times, four days",
            phases=[(_DAYS, at(1.5))],
            alerts=[leaks],
        ),
    ]


def main(argv: Sequence[str] = ()) -> int:
    """All three proofs and their page."""
    given = parser(__doc__).parse_args(argv)
    page = Page(name="alerts", title="Rules and dashboards in a real Prometheus", arguments=argv)
    prometheus, promtool = _programs()
    version = subprocess.run([promtool, "--version"], capture_output=True, text=True, check=True)
    page.notes.append((version.stdout or version.stderr).splitlines()[0])
    _accepted(page, promtool)
    with tempfile.TemporaryDirectory(prefix="auricle-alerts-") as place:
        folder = Path(place)
        _played(page, promtool, folder)
        _scraped(page, prometheus, folder)
    return page.write(given.out)


def _programs() -> tuple[str, str]:
    done = subprocess.run(
        ["bash", "deploy/prometheus.sh"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    prometheus, promtool = done.stdout.split()
    return prometheus, promtool


def _accepted(page: Page, promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "rules", str(ROOT / RULES)], capture_output=True, text=True, check=False
    )
    said = (done.stdout + done.stderr).strip().splitlines()[-1].strip()
    page.bars.append(holds("`promtool check rules`", "success", said, done.returncode == 0))


def _played(page: Page, promtool: str, folder: Path) -> None:
    rows = []
    for objective in load(ROOT / FOLDER).objectives:
        rules = folder / f"{objective.name}.yaml"
        rules.write_text(yaml.safe_dump(_rules_of(objective)))
        for story in stories(objective):
            path = folder / "story.yaml"
            path.write_text(yaml.safe_dump(_unit_test(objective, story, rules)))
            done = subprocess.run(
                [promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False
            )
            good = done.returncode == 0
            if not good:
                sys.stderr.write(done.stdout + done.stderr)
            stands = ", ".join(story.alerts) or "none"
            rows.append((objective.name, story.what, stands, "yes" if good else "**no**"))
    kept = sum(row[-1] == "yes" for row in rows)
    page.bars.append(
        holds("stories of errors that end in the alerts that they must", f"{len(rows)}", f"{kept}",
              kept == len(rows))
    )  # fmt: skip
    header = ("promise", "times the allowed errors", "alerts that stand", "as told")
    page.sections.append(("Played through Prometheus' rule engine", table(header, rows)))


def _rules_of(objective: Objective) -> dict[str, Any]:
    """The objective's part of the rule file, as it stands there: days pass faster without the rest."""
    groups = yaml.safe_load((ROOT / RULES).read_text())["groups"]
    for group in groups:
        group["rules"] = [r for r in group["rules"] if r["labels"].get("slo") == objective.name]
    return {"groups": [group for group in groups if group["rules"]]}


def _unit_test(objective: Objective, story: Story, rules: Path) -> dict[str, Any]:
    """A `promtool test rules` file; one sample a minute, a thousand events each."""
    end_m = sum(minutes for minutes, _ in story.phases)
    expected = [
        {
            "eval_time": f"{end_m}m",
            "alertname": burn.alert,
            "exp_alerts": [_alert(objective, burn.alert)] if burn.alert in story.alerts else [],
        }
        for burn in BURNS
    ]
    return {
        "rule_files": [str(rules)],
        "evaluation_interval": "5m",
        "tests": [
            {
                "interval": "1m",
                "input_series": _series(objective, story.phases),
                "alert_rule_test": expected,
            }
        ],
    }


def _alert(objective: Objective, name: str) -> dict[str, Any]:
    (rule,) = [
        rule
        for group in yaml.safe_load((ROOT / RULES).read_text())["groups"]
        for rule in group["rules"]
        if rule.get("alert") == name and rule["labels"].get("slo") == objective.name
    ]
    assert rule["annotations"]["runbook"] == anchor(name)
    return {"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}


def _series(objective: Objective, phases: Sequence[tuple[int, float]]) -> list[dict[str, str]]:
    labels = {name: pattern.split("|")[0] for name, pattern in objective.labels.items()}
    if objective.counter:
        good, bad = {**labels, "status": "200"}, {**labels, "status": "500"}
        return [
            _counter(objective.counter, good, [(m, 1.0 - share) for m, share in phases]),
            _counter(objective.counter, bad, phases),
        ]
    within = {**labels, "le": f"{objective.within:g}"}
    return [
        _counter(f"{objective.histogram}_count", labels, [(m, 1.0) for m, _ in phases]),
        _counter(
            f"{objective.histogram}_bucket", within, [(m, 1.0 - share) for m, share in phases]
        ),
    ]


def _counter(
    name: str, labels: Mapping[str, str], phases: Sequence[tuple[int, float]]
) -> dict[str, str]:
    """A counter that grows by a thousand times the share in each minute of a phase."""
    shown = ",".join(f'{label}="{value}"' for label, value in labels.items())
    parts, value = [], 0.0
    for minutes, share in phases:
        parts.append(f"{value:.4f}+{1000 * share:.4f}x{minutes - 1}")
        value += 1000 * share * minutes
    return {"series": f"{name}{{{shown}}}" if shown else name, "values": " ".join(parts)}


def _scraped(page: Page, prometheus: str, folder: Path) -> None:
    bundle = make_bundle(folder / "tiny")
    with (
        service(folder / "home", bundle=bundle, log=folder / "service.log") as running,
        _scraping(prometheus, running.port, folder) as url,
    ):
        answered = _load(running.client, folder)
        page.notes.append(f"the service answered {answered} files and streams meanwhile")
        _wait_for_ratios(url)
        _all_rules_hold(page, url)
        _dashboards_answer(page, url)
        _budgets_read(page, url)


@contextmanager
def _scraping(prometheus: str, port: int, folder: Path) -> Iterator[str]:
    own = free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "2s"},
        "scrape_configs": [
            {"job_name": "auricle", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        ],
        "rule_files": [str(ROOT / RULES)],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [
        prometheus, f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        end_s = time.monotonic() + _LIMIT_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{own}/-/ready", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end_s:
                    raise RuntimeError((folder / "prometheus.log").read_text()[-2000:]) from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{own}"
    finally:
        process.terminate()
        process.wait(30)


def _load(client: Any, folder: Path) -> int:
    """Files and streams one after the other, so that every stage has something to tell."""
    path = folder / "speech.wav"
    path.write_bytes(wav(babble(2.0)))
    answered, end_s = 0, time.monotonic() + _LOAD_S
    while time.monotonic() < end_s:
        client.transcribe(path, model="tiny")
        client.stream(pcm16(babble(2.0)).tobytes(), rate_hz=16_000)
        answered += 2
        time.sleep(0.5)
    return answered


def _wait_for_ratios(url: str) -> None:
    wanted = len(load(ROOT / FOLDER).objectives) * len(WINDOWS)
    end_s = time.monotonic() + _LIMIT_S
    count = Prometheus(url=url)
    query = f'count({{__name__=~"{RATIO}.+"}})'
    while (count.value(query) or 0) < wanted and time.monotonic() < end_s:
        time.sleep(1.0)


def _ask(url: str, path: str) -> Any:
    with urllib.request.urlopen(url + path, timeout=30) as answer:
        return json.load(answer)


def _all_rules_hold(page: Page, url: str) -> None:
    rules = [
        rule for group in _ask(url, "/api/v1/rules")["data"]["groups"] for rule in group["rules"]
    ]
    sick = [rule["name"] for rule in rules if rule["health"] != "ok"]
    page.bars.append(
        holds("rules that a running Prometheus evaluates without an error", "all",
              f"{len(rules) - len(sick)} of {len(rules)}", not sick and bool(rules))
    )  # fmt: skip
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
    page.bars.append(
        holds(
            "alerts that fire on a healthy service", "none", ", ".join(firing) or "none", not firing
        )
    )
    up = Prometheus(url=url).value('up{job="auricle"}')
    page.bars.append(holds('`up{job="auricle"}`', "1", f"{up:g}" if up else "none", up == 1))


def _dashboards_answer(page: Page, url: str) -> None:
    rows, broken, silent = [], 0, 0
    for path in sorted((ROOT / FOLDER / "dashboards").iterdir()):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m")
                answer = _ask(url, f"/api/v1/query?query={quote(query)}")
                series = len(answer["data"]["result"]) if answer["status"] == "success" else -1
                broken += series < 0
                silent += series == 0 and "jobs" not in query
                rows.append((path.stem, panel["title"], target["legendFormat"], series))
    page.bars.append(
        holds("queries of the dashboards that Prometheus answers with series", "all but jobs",
              f"{len(rows)} asked, {broken} refused, {silent} empty", not broken and not silent)
    )  # fmt: skip
    header = ("dashboard", "panel", "legend", "series")
    page.sections.append(("What the dashboards' queries gave", table(header, rows)))


def _budgets_read(page: Page, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "slo", "--prometheus", url, "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    standings = json.loads(done.stdout) if done.returncode == 0 else []
    shown = ", ".join(f"{one['name']} {one['left']}" for one in standings) or done.stderr.strip()
    whole = bool(standings) and all(one["left"] is not None for one in standings)
    page.bars.append(
        holds("`auricle slo --prometheus`", "every budget has a standing", shown, whole)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
