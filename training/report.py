"""The evaluation report: one HTML file that opens anywhere, offline, and explains itself.

Nothing is fetched (a Content-Security-Policy in the page forbids it) and no script runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from governance.records import SliceScore
from training.evaluate import EvaluationResult, worst_utterances
from training.reporting.alignment import Clip, worst_html
from training.reporting.charts import Curve, interval_text, line_chart, percent
from training.reporting.tables import (
    BaselineRow,
    VariantRow,
    baseline_table,
    facts_list,
    full_scale,
    results_table,
    slice_table,
    variant_table,
)

_STYLE = Path(__file__).with_name("reporting") / "style.css"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:"
_FOLD_AFTER = 12  # a slice table longer than this is folded, so that the page stays readable


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves that share axes."""

    title: str
    """Above the chart."""
    y_label: str
    """Unit of the values."""
    curves: Sequence[Curve]
    """Lines, at most four to stay readable."""
    x_label: str = "step"
    """Unit of the x axis."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything the page shows; plain values, nothing is computed from audio here."""

    title: str
    """The model's name and version."""
    subtitle: str
    """Domain and recordings in a sentence."""
    results: Sequence[EvaluationResult]
    """One per mode and decoder; the first is the headline and the source of slices and worst."""
    charts: Sequence[Chart] = ()
    """Loss, dev error rate."""
    variants: Sequence[VariantRow] = ()
    """fp32, int8, as measured."""
    baselines: Sequence[BaselineRow] = ()
    """Other systems on the same recordings."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Where it came from: commit, run, digests, machine."""
    worst: int = 12
    """How many of the worst utterances to show; 0 leaves content out of the page."""
    clips: Mapping[str, Clip] = field(default_factory=dict)
    """Audio by utterance id, for the worst utterances that may be heard."""


def render_report(data: ReportData) -> str:
    """The page, as text."""
    if not data.results:
        raise ValueError("a report needs at least one evaluation result")
    sections = [section for section in _sections(data) if section[2]]
    contents = "".join(f'<li><a href="#{key}">{escape(t)}</a></li>' for key, t, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title">'
        f'<h2 id="{key}-title">{escape(title)}</h2>{html}</section>'
        for key, title, html in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(data.title)} · evaluation</title>"
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head><body>"
        f'<header class="top"><h1>{escape(data.title)}</h1>'
        f'<p class="lead">{escape(data.subtitle)}</p>{_personal_note(data)}'
        f'{_headline(data)}<nav aria-label="sections"><ul>{contents}</ul></nav></header>'
        f"<main>{body}</main><footer>{_method(data)}</footer></body></html>\n"
    )


def _sections(data: ReportData) -> list[tuple[str, str, str]]:
    headline = data.results[0]
    charts = "".join(
        line_chart(c.curves, title=c.title, x_label=c.x_label, y_label=c.y_label)
        for c in data.charts
    )
    return [
        ("modes", "Modes and decoders", _modes(data)),
        ("slices", "By slice", _slices(headline)),
        ("baselines", "Beside other systems", _baselines(data)),
        ("variants", "Variants", _variants(data)),
        ("training", "Training", f'<div class="charts">{charts}</div>' if charts else ""),
        ("worst", "Worst utterances", _worst(data)),
        ("origin", "Where this came from", facts_list(data.facts) if data.facts else ""),
    ]


def _headline(data: ReportData) -> str:
    first = data.results[0]
    cards = [
        _card(
            f"Word error rate, {first.mode}, {first.decoder}",
            percent(first.wer.point),
            f"95 % interval {100 * first.wer.low:.1f} to {100 * first.wer.high:.1f}",
            first=True,
        ),
        _card("Character error rate", percent(first.cer.point), interval_text(first.cer)),
        _card(
            "Words left out",
            percent(first.errors.del_ / max(1, first.errors.ref)),
            f"{percent(first.deletions_share)} of all errors are deletions",
        ),
        _card(
            "Judged on",
            f"{first.words} words",
            f"{first.utterances} recordings, {first.speakers} speakers",
        ),
    ]
    return f'<ul class="cards">{"".join(cards)}</ul>'


def _card(what: str, figure: str, small: str, *, first: bool = False) -> str:
    kind = "card first" if first else "card"
    return (
        f'<li class="{kind}"><span class="what">{escape(what)}</span>'
        f'<span class="figure">{escape(figure)}</span>'
        f'<span class="range">{escape(small)}</span></li>'
    )


def _modes(data: ReportData) -> str:
    legend = "".join(
        f'<li class="key {name}">{name}</li>' for name in ("substituted", "deleted", "inserted")
    )
    return (
        '<p class="hint"><b>full</b> sees the whole recording; <b>masked</b> sees it through the '
        "streaming chunks' mask; <b>stream</b> is fed chunk by chunk and must equal masked. "
        "<b>greedy</b> uses no language model.</p>"
        f'{results_table(data.results, chosen=data.results[0])}<ul class="legend">{legend}</ul>'
    )


def _slices(result: EvaluationResult) -> str:
    open_rows = [row for rows in result.slices.values() if len(rows) <= _FOLD_AFTER for row in rows]
    scale = full_scale([row.wer for row in open_rows])  # one scale, so that bars compare
    return "".join(
        _foldable(dimension, scores, scale) for dimension, scores in result.slices.items() if scores
    )


def _foldable(dimension: str, scores: Sequence[SliceScore], scale: float) -> str:
    if len(scores) > _FOLD_AFTER:
        scale = full_scale([row.wer for row in scores])
    html = slice_table(scores, dimension=dimension, scale=scale)
    title = escape(dimension[:1].upper() + dimension[1:])
    if len(scores) <= _FOLD_AFTER:
        return f"<h3>{title}</h3>{html}"
    return f"<details><summary>{title}, {len(scores)} slices</summary>{html}</details>"


def _baselines(data: ReportData) -> str:
    return baseline_table(data.baselines, data.results[0]) if data.baselines else ""


def _variants(data: ReportData) -> str:
    if not data.variants:
        return ""
    return (
        '<p class="hint">Real-time factor is CPU-seconds per second of audio on one thread: '
        "smaller is faster.</p>" + variant_table(data.variants)
    )


def _worst(data: ReportData) -> str:
    items = worst_utterances(data.results[0].scored, limit=data.worst)
    if not items:
        return ""
    return (
        '<p class="hint">Most wrong words first. What was said is above, what was recognised '
        f"below.</p>{worst_html(items, data.clips)}"
    )


def _personal_note(data: ReportData) -> str:
    if data.worst <= 0:
        return ""
    what = "recorded speech and transcripts" if data.clips else "transcripts of recorded speech"
    return (
        f'<p class="note"><b>Personal content.</b> This page holds {what} of identifiable '
        "speakers. Keep it where the recordings are kept, do not publish it, and delete it when "
        "a speaker is erased; it can be rendered again from the records.</p>"
    )


def _method(data: ReportData) -> str:
    return (
        "<p>Intervals are 95 % percentile bootstrap over speakers: whole speakers are drawn, "
        "because one speaker's recordings err alike. A slice with few speakers has a wide or a "
        "meaningless interval; read its counts first. The page loads nothing and runs no script."
        "</p>"
    )
