"""Grafana dashboards as data: the service at a glance, and what is left of the error budgets."""

from collections.abc import Sequence
from typing import Any

from serving.observe.objectives import Objectives
from serving.observe.rules import BURNS, RATIO

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_STAGES = ("network", "queue", "features", "model", "decoding", "delivery")
_WIDTH, _HEIGHT = 24, 8
Query = tuple[str, str]  # PromQL, legend


def dashboards(objectives: Objectives) -> dict[str, dict[str, Any]]:
    """File name -> dashboard."""
    return {"service.json": _service(), "budgets.json": _budgets(objectives)}


def _service() -> dict[str, Any]:
    answers = [
        ("sum by (route, status) (rate(auricle_answers_total[$__rate_interval]))", "{{route}} {{status}}"),
    ]  # fmt: skip
    requests = [
        (_quantile(share, "auricle_request_seconds", "route"), f"p{share * 100:g} {{{{route}}}}")
        for share in (0.5, 0.95, 0.99)
    ]
    rows = [
        [
            _series("Answers by route and status", answers, "reqps"),
            _series("Whole requests", requests, "s"),
        ],
        [_stages("file", "Where a file's time goes"), _stages("stream", "Where a chunk's time goes")],
        [
            _series(
                "Seconds of work for each second of sound",
                [
                    (_quantile(0.95, "auricle_seconds_per_audio_second", "mode"), "p95 {{mode}}"),
                    (_quantile(0.5, "auricle_seconds_per_audio_second", "mode"), "p50 {{mode}}"),
                ],
                "s",
            ),
            _series(
                "Lag of live results",
                [(_quantile(share, "auricle_stream_lag_seconds"), f"p{share * 100:g}")
                 for share in (0.5, 0.95, 0.99)],
                "s",
            ),
        ],
        [
            _series("Live streams, by worker", [("auricle_streams_open", "{{pid}}")], "short"),
            _series("Rows that wait for the model, by worker", [("auricle_queue_depth", "{{pid}}")], "short"),
            _series(
                "Rows per model call",
                [("sum by (mode) (rate(auricle_batch_rows_sum[$__rate_interval])) "
                  "/ sum by (mode) (rate(auricle_batch_rows_count[$__rate_interval]))", "{{mode}}")],
                "short",
            ),
        ],
        [
            _series(
                "Sound taken in, seconds each second",
                [("sum by (mode) (rate(auricle_audio_seconds_total[$__rate_interval]))", "{{mode}}")],
                "short",
            ),
            _series(
                "Warm and cold starts",
                [("sum by (state) (rate(auricle_normalisation_total[$__rate_interval]))", "{{state}}")],
                "ops",
            ),
            _series(
                "Jobs",
                [("max(auricle_jobs_waiting)", "waiting"),
                 ("sum by (outcome) (rate(auricle_jobs_total[$__rate_interval]))", "{{outcome}}")],
                "short",
            ),
        ],
    ]  # fmt: skip
    return _dashboard("auricle-service", "Auricle: the service", rows)


def _budgets(objectives: Objectives) -> dict[str, Any]:
    rows = []
    for objective in objectives.objectives:
        left = f"1 - ({objective.error_ratio(objectives.window)}) / {objective.budget:.6g}"
        burns = [
            (f'{RATIO}{window}{{slo="{objective.name}"}} / {objective.budget:.6g}', window)
            for window in dict.fromkeys(burn.long for burn in BURNS)
        ]
        rows.append(
            [
                _left(f"{objective.name}: budget left of {objectives.window}", left),
                _series(f"{objective.name}: burn rate (1 spends it all in time)", burns, "short"),
            ]
        )
    return _dashboard("auricle-budgets", "Auricle: error budgets", rows)


def _stages(mode: str, title: str) -> dict[str, Any]:
    queries = [
        (
            f'sum(rate(auricle_{stage}_seconds_sum{{mode="{mode}"}}[$__rate_interval])) '
            f'/ sum(rate(auricle_{stage}_seconds_count{{mode="{mode}"}}[$__rate_interval]))',
            stage,
        )
        for stage in _STAGES
        if not (mode == "stream" and stage == "network")  # a stream's body never ends
    ]
    panel = _series(title, queries, "s")
    panel["fieldConfig"]["defaults"]["custom"] |= {
        "stacking": {"mode": "normal"},
        "fillOpacity": 40,
    }
    return panel


def _quantile(share: float, histogram: str, *by: str) -> str:
    labels = ", ".join((*by, "le"))
    rate = f"rate({histogram}_bucket[$__rate_interval])"
    return f"histogram_quantile({share:g}, sum by ({labels}) ({rate}))"


def _series(title: str, queries: Sequence[Query], unit: str) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "targets": _targets(queries),
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                    "tooltip": {"mode": "multi", "sort": "desc"}},
    }  # fmt: skip


def _left(title: str, query: str) -> dict[str, Any]:
    steps = [
        {"color": "red", "value": None},
        {"color": "orange", "value": 0.1},
        {"color": "green", "value": 0.5},
    ]
    return {
        "type": "gauge",
        "title": title,
        "datasource": _SOURCE,
        "targets": _targets([(query, "left")]),
        "fieldConfig": {
            "defaults": {"unit": "percentunit", "min": 0, "max": 1,
                         "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}},
    }  # fmt: skip


def _targets(queries: Sequence[Query]) -> list[dict[str, Any]]:
    return [
        {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
        for at, (query, legend) in enumerate(queries)
    ]


def _dashboard(uid: str, title: str, rows: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    for down, row in enumerate(rows):
        width = _WIDTH // len(row)
        for across, panel in enumerate(row):
            place = {"x": across * width, "y": down * _HEIGHT, "w": width, "h": _HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place, **panel})
    return {
        "uid": uid,
        "title": title,
        "schemaVersion": 39,
        "tags": ["auricle"],
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus",
                      "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }  # fmt: skip
