"""Inline SVG drawn from numbers alone: colours come from the page's style sheet, so a chart follows
the reader's light or dark theme, and every chart carries its figures as text for screen readers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from governance.records import Interval

_BAR_WIDTH = 240.0
_BAR_HEIGHT = 18.0
_PLOT = (52.0, 14.0, 560.0, 210.0)  # left, top, width, height of a line chart's plotting area
_MAX_POINTS = 300  # a polyline beyond this adds bytes and no information at this width


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    label: str
    """What the legend says."""
    steps: Sequence[float]
    """x values, increasing."""
    values: Sequence[float]
    """y values; NaN and infinities are left out."""


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """About ``count`` round numbers (1, 2, 5 times a power of ten) that span low..high."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / max(1, count - 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's label: no trailing zeros, thousands as k."""
    if abs(value) >= 10_000 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def percent(rate: float) -> str:
    """0.1234 -> "12.3 %" (a thin space, so that it does not break apart)."""
    return f"{100 * rate:.1f}\u202f%"


def interval_text(interval: Interval) -> str:
    """ "12.3 % (10.1 to 14.9)" in words that a screen reader can say."""
    return f"{percent(interval.point)} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def interval_bar(interval: Interval, *, full_scale: float, label: str) -> str:
    """A bar from zero to the point with a whisker over the interval; clipped at ``full_scale``."""
    scale = _BAR_WIDTH / full_scale if full_scale > 0 else 0.0
    low, point, high = (
        min(_BAR_WIDTH, max(0.0, value * scale))
        for value in (interval.low, interval.point, interval.high)
    )
    middle = _BAR_HEIGHT / 2
    return (
        f'<svg class="bar" viewBox="-1 0 {_BAR_WIDTH + 2:g} {_BAR_HEIGHT:g}" role="img" '
        f'aria-label="{escape(label)}: {escape(interval_text(interval))}">'
        f'<rect class="track" x="0" y="3" width="{_BAR_WIDTH:g}" height="12" rx="3"/>'
        f'<rect class="fill" x="0" y="3" width="{point:.1f}" height="12" rx="3"/>'
        f'<path class="whisker" d="M{low:.1f} {middle:g}H{high:.1f}'
        f'M{low:.1f} 4.5V13.5M{high:.1f} 4.5V13.5"/></svg>'
    )


def stacked_bar(parts: Sequence[tuple[str, int]], *, label: str) -> str:
    """Shares of a whole, one segment per (class name, count); empty when the whole is zero."""
    whole = sum(count for _, count in parts)
    if whole == 0:
        return ""
    said = ", ".join(f"{name} {count}" for name, count in parts)
    segments, left = [], 0.0
    for name, count in parts:
        width = _BAR_WIDTH * count / whole
        segments.append(
            f'<rect class="part {escape(name)}" x="{left:.1f}" y="3" width="{width:.1f}" '
            f'height="12"><title>{escape(name)}: {count}</title></rect>'
        )
        left += width
    return (
        f'<svg class="bar" viewBox="-1 0 {_BAR_WIDTH + 2:g} {_BAR_HEIGHT:g}" role="img" '
        f'aria-label="{escape(label)}: {escape(said)}">{"".join(segments)}</svg>'
    )


def line_chart(curves: Sequence[Curve], *, title: str, x_label: str, y_label: str) -> str:
    """A line chart with round ticks, a legend in words and dashes beside colour."""
    drawn = [thinned for curve in curves if (thinned := _thin(curve)).steps]
    if not drawn:
        return ""
    x_ticks = nice_ticks(min(c.steps[0] for c in drawn), max(c.steps[-1] for c in drawn), count=6)
    y_low = min(0.0, *(min(c.values) for c in drawn))
    y_ticks = nice_ticks(y_low, max(max(c.values) for c in drawn))
    frame = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    left, top, width, height = _PLOT
    said = "; ".join(f"{c.label} from {c.values[0]:.3g} to {c.values[-1]:.3g}" for c in drawn)
    body = _axes(frame, x_ticks, y_ticks, x_label, y_label)
    body += "".join(_polyline(curve, index, frame) for index, curve in enumerate(drawn))
    legend = "".join(
        f'<li class="key s{index % 4}">{escape(curve.label)} <b>{curve.values[-1]:.3g}</b></li>'
        for index, curve in enumerate(drawn)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {left + width + 14:g} {top + height + 42:g}" role="img" '
        f'aria-label="{escape(title)}: {escape(said)}">{body}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


@dataclass(frozen=True)
class _Frame:
    """Maps data to the plotting area."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Pixels from the left edge."""
        span = self.x_high - self.x_low or 1.0
        return _PLOT[0] + _PLOT[2] * (value - self.x_low) / span

    def y(self, value: float) -> float:
        """Pixels from the top edge."""
        span = self.y_high - self.y_low or 1.0
        return _PLOT[1] + _PLOT[3] * (1 - (value - self.y_low) / span)


def _thin(curve: Curve) -> Curve:
    """Finite points only, averaged over equal runs when there are more than the width can show."""
    points = [
        (float(x), float(y))
        for x, y in zip(curve.steps, curve.values, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    run = math.ceil(len(points) / _MAX_POINTS) or 1
    groups = [points[start : start + run] for start in range(0, len(points), run)]
    return Curve(
        label=curve.label,
        steps=[group[-1][0] for group in groups],
        values=[sum(y for _, y in group) / len(group) for group in groups],
    )


def _axes(
    frame: _Frame,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
) -> str:
    left, top, width, height = _PLOT
    bottom = top + height
    parts = []
    for value in y_ticks:
        y = frame.y(value)
        parts.append(f'<path class="grid" d="M{left:g} {y:.1f}h{width:g}"/>')
        parts.append(
            f'<text x="{left - 8:g}" y="{y + 4:.1f}" class="end">{tick_text(value)}</text>'
        )
    for value in x_ticks:
        x = frame.x(value)
        parts.append(f'<path class="tick" d="M{x:.1f} {bottom:g}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18:g}" class="mid">{tick_text(value)}</text>')
    parts.append(f'<path class="axis" d="M{left:g} {bottom:g}h{width:g}"/>')
    parts.append(
        f'<text x="{left + width / 2:g}" y="{bottom + 36:g}" class="mid name">'
        f"{escape(x_label)}</text>"
    )
    parts.append(
        f'<text x="12" y="{top + height / 2:g}" class="mid name" '
        f'transform="rotate(-90 12 {top + height / 2:g})">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _polyline(curve: Curve, index: int, frame: _Frame) -> str:
    points = " ".join(
        f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(curve.steps, curve.values, strict=True)
    )
    end = f'cx="{frame.x(curve.steps[-1]):.1f}" cy="{frame.y(curve.values[-1]):.1f}"'
    return (
        f'<polyline class="line s{index % 4}" points="{points}"/>'
        f'<circle class="dot s{index % 4}" {end} r="3"/>'
    )
