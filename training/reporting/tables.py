"""The report's tables: results by mode, slices, variants, baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from governance.records import Interval, SliceScore
from training.evaluate import EvaluationResult
from training.reporting.charts import interval_bar, interval_text, percent, stacked_bar


@dataclass(frozen=True, kw_only=True)
class VariantRow:
    """One form of the model (fp32, int8) as measured; None where it was not measured."""

    name: str
    """ "fp32", "int8", "fp16"."""
    size_mb: float
    """Bytes of the graphs on disk, in units of a million."""
    file_rtf: Interval | None = None
    """CPU-seconds per second of audio, whole files."""
    stream_rtf: Interval | None = None
    """CPU-seconds per second of audio, chunk by chunk."""
    chunk_p99_ms: float | None = None
    """99th percentile of one chunk's time."""
    wer: Interval | None = None
    """Word error rate of this variant on the report's recordings."""
    deletions: int | None = None
    """Words left out."""
    note: str = ""
    """What the gate said, for example."""


@dataclass(frozen=True, kw_only=True)
class BaselineRow:
    """Another system on the same recordings."""

    name: str
    """Who."""
    wer: Interval
    """How well."""
    note: str = ""
    """What to know before comparing."""


def results_table(results: Sequence[EvaluationResult], *, chosen: EvaluationResult) -> str:
    """Every mode and decoder side by side, the headline's row tinted."""
    scale = full_scale([result.wer for result in results])
    rows = "".join(_result_row(result, scale, result is chosen) for result in results)
    return table(
        ["Mode", "Decoder", "#WER", "WER, 95 % interval", "", "#CER", "What the errors are"], rows
    )


def _result_row(result: EvaluationResult, scale: float, chosen: bool) -> str:
    errors = result.errors
    kinds = [("substituted", errors.sub), ("deleted", errors.del_), ("inserted", errors.ins)]
    label = f"{result.mode} {result.decoder}"
    mark = ' class="chosen"' if chosen else ""
    return (
        f'<tr{mark}><th scope="row">{escape(result.mode)}</th><td>{escape(result.decoder)}</td>'
        f"{wer_cells(result.wer, scale, label)}"
        f'<td class="num">{percent(result.cer.point)}</td>'
        f"<td>{stacked_bar(kinds, label=label + ' errors')}</td></tr>"
    )


def slice_table(scores: Sequence[SliceScore], *, dimension: str, scale: float) -> str:
    """One dimension's slices with their weight in words, so that a small slice is seen as small."""
    rows = "".join(
        f'<tr><th scope="row">{escape(score.value)}</th>'
        f'<td class="num">{score.utterances}</td><td class="num">{score.words}</td>'
        f"{wer_cells(score.wer, scale, f'{dimension} {score.value}')}</tr>"
        for score in scores
    )
    first = dimension[:1].upper() + dimension[1:]
    head = [first, "#Utterances", "#Words", "#WER", "WER, 95 % interval", ""]
    return table(head, rows, kind="slices")


def variant_table(variants: Sequence[VariantRow]) -> str:
    """Size, speed and accuracy of each form of the same model."""
    rows = "".join(_variant_row(variant) for variant in variants)
    head = [
        "Variant", "#Size", "#File, real-time factor", "#Stream, real-time factor",
        "#Chunk p99", "#WER", "#Deleted words", "",
    ]  # fmt: skip
    return table(head, rows)


def _variant_row(row: VariantRow) -> str:
    chunk = "–" if row.chunk_p99_ms is None else f"{row.chunk_p99_ms:.1f} ms"
    wer = "–" if row.wer is None else escape(interval_text(row.wer))
    deletions = "–" if row.deletions is None else str(row.deletions)
    return (
        f'<tr><th scope="row">{escape(row.name)}</th><td class="num">{row.size_mb:.2f} MB</td>'
        f'<td class="num">{_rtf(row.file_rtf)}</td><td class="num">{_rtf(row.stream_rtf)}</td>'
        f'<td class="num">{chunk}</td><td class="num">{wer}</td>'
        f'<td class="num">{deletions}</td><td class="remark">{escape(row.note)}</td></tr>'
    )


def _rtf(value: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{value.point:.4f} ({value.low:.4f} to {value.high:.4f})"


def baseline_table(baselines: Sequence[BaselineRow], result: EvaluationResult) -> str:
    """Other systems under our own figure, on one scale."""
    ours = BaselineRow(name="This model", wer=result.wer, note=f"{result.mode}, {result.decoder}")
    rows = [ours, *baselines]
    scale = full_scale([row.wer for row in rows])
    body = "".join(
        f'<tr{" class=chosen" if row is ours else ""}><th scope="row">{escape(row.name)}</th>'
        f"{wer_cells(row.wer, scale, row.name)}"
        f'<td class="remark">{escape(row.note)}</td></tr>'
        for row in rows
    )
    return table(["System", "#WER", "WER, 95 % interval", "", "Note"], body)


def wer_cells(wer: Interval, scale: float, label: str) -> str:
    """Three cells: point, bar, bounds in digits."""
    bounds = f"{100 * wer.low:.1f} to {100 * wer.high:.1f}"
    bar = interval_bar(wer, full_scale=scale, label=label)
    return (
        f'<td class="num"><b>{percent(wer.point)}</b></td><td>{bar}</td>'
        f'<td class="range">{bounds}</td>'
    )


def table(head: Sequence[str], rows: str, *, kind: str = "plain") -> str:
    """A table that scrolls on a narrow screen; a heading that starts with # is right-aligned."""
    cells = "".join(
        f'<th scope="col" class="num">{escape(name[1:])}</th>'
        if name.startswith("#")
        else f'<th scope="col">{escape(name)}</th>'
        for name in head
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}">'
        f"<thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def full_scale(intervals: Sequence[Interval]) -> float:
    """The rate at the right end of the bars: just above the highest bound."""
    return max([interval.high for interval in intervals] + [0.01]) * 1.02


def facts_list(facts: Mapping[str, str]) -> str:
    """Names and values of where this came from."""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f'<dl class="facts">{rows}</dl>'
