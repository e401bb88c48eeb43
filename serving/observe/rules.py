"""Prometheus rules from the objectives: burn rates in several windows, and a few plain alarms.

A burn rate of 1 spends a budget exactly within its window. An alert fires when a long window shows
that it matters and a short one that it still goes on; the pairs are those of the Google SRE
Workbook, chapter 5, for a window of 30 days.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.observe.objectives import Objective, Objectives

RUNBOOK = "docs/operations.md"
RATIO = "auricle:slo_errors:ratio_rate"


@dataclass(frozen=True, kw_only=True)
class Burn:
    """A speed of spending, and the two windows that must show it."""

    alert: str
    severity: str
    rate: float
    long: str
    short: str
    spent: str  # of the budget, when it fires at its earliest


BURNS = (
    Burn(
        alert="AuricleBudgetBurnsFast", severity="page",
        rate=14.4, long="1h", short="5m", spent="2 % in an hour",
    ),
    Burn(
        alert="AuricleBudgetBurns", severity="page",
        rate=6.0, long="6h", short="30m", spent="5 % in six hours",
    ),
    Burn(
        alert="AuricleBudgetBurnsSlowly", severity="ticket",
        rate=3.0, long="1d", short="2h", spent="10 % in a day",
    ),
    Burn(
        alert="AuricleBudgetLeaks", severity="ticket",
        rate=1.0, long="3d", short="6h", spent="10 % in three days",
    ),
)  # fmt: skip
WINDOWS = tuple(dict.fromkeys(window for burn in BURNS for window in (burn.short, burn.long)))


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """An alert on a state, for what budgets do not see."""

    alert: str
    severity: str
    expr: str
    lasts: str
    summary: str


ALARMS = (
    Alarm(
        alert="AuricleDown",
        severity="page",
        expr='up{job="auricle"} == 0',
        lasts="1m",
        summary="A process of the service does not answer",
    ),
    Alarm(
        alert="AuricleRefusesWork",
        severity="ticket",
        expr='sum(rate(auricle_answers_total{status="429"}[10m])) '
        "/ sum(rate(auricle_answers_total[10m])) > 0.05",
        lasts="10m",
        summary="More than one request in twenty is told to come again",
    ),
    Alarm(
        alert="AuricleQueueLong",
        severity="ticket",
        expr="sum(auricle_queue_depth) > 100",
        lasts="10m",
        summary="Rows wait for the model, and more come than go",
    ),
    Alarm(
        alert="AuricleJobsStand",
        severity="ticket",
        expr="max(auricle_jobs_waiting) > 100",
        lasts="30m",
        summary="Jobs are accepted faster than they are done",
    ),
)


def rules(objectives: Objectives) -> dict[str, Any]:
    """The rule file."""
    recorded = [
        {
            "record": f"{RATIO}{window}",
            "expr": objective.error_ratio(window),
            "labels": {"slo": objective.name},
        }
        for objective in objectives.objectives
        for window in WINDOWS
    ]
    burns = [_burn(objective, burn) for objective in objectives.objectives for burn in BURNS]
    return {
        "groups": [
            {"name": "auricle-slo-ratios", "interval": "30s", "rules": recorded},
            {"name": "auricle-slo-burn", "rules": burns},
            {"name": "auricle-alarms", "rules": [_alarm(alarm) for alarm in ALARMS]},
        ]
    }


def anchor(alert: str) -> str:
    """The heading of an alert's runbook, as a link's target."""
    return f"{RUNBOOK}#{alert.lower()}"


def _burn(objective: Objective, burn: Burn) -> dict[str, Any]:
    bound = f"{burn.rate * objective.budget:.6g}"
    sides = [
        f'{RATIO}{window}{{slo="{objective.name}"}} > {bound}' for window in (burn.long, burn.short)
    ]
    return _alert(
        burn.alert,
        " and ".join(sides),
        labels={"severity": burn.severity, "slo": objective.name},
        summary=f"{objective.name}: {burn.rate:g} times the allowed errors ({burn.spent} of the budget)",
    )


def _alarm(alarm: Alarm) -> dict[str, Any]:
    found = _alert(
        alarm.alert, alarm.expr, labels={"severity": alarm.severity}, summary=alarm.summary
    )
    return {**found, "for": alarm.lasts}


def _alert(name: str, expr: str, *, labels: Mapping[str, str], summary: str) -> dict[str, Any]:
    notes = {"summary": summary, "runbook": anchor(name)}
    return {"alert": name, "expr": expr, "labels": dict(labels), "annotations": notes}
