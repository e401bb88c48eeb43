"""The model card: what a version is for, how well it works for whom, and where it came from.

Everything in it is read from records, the verdict and the lineage; what was not recorded is said to
be so. One structure is rendered twice: as Markdown for terminals and MLflow, as one HTML file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from governance.card_pages import Bullets, Listing, Page, Section, Table, Text, html, markdown
from governance.gates import Verdict
from governance.lineage import Lineage, render_text
from governance.records import Interval, SliceScore, StageRecord

WORST_SLICES = 8
MINIMUM_SLICE_WORDS = 50
"""Slices with fewer words say nothing about people."""

_ABSENT = "not recorded"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The same card twice."""

    markdown: str
    html: str


def render_model_card(
    records: Mapping[str, StageRecord],
    verdict: Verdict,
    lineage: Lineage,
    *,
    limits: tuple[str, ...] = (),
) -> ModelCard:
    """Render the card of the version that ``lineage`` starts from; ``limits`` are added as said."""
    page = Page(
        title=lineage.root.title,
        sections=(
            _intended_use(records),
            _data(records),
            _performance(records),
            _worst_slices(records),
            _quantisation(records, verdict),
            _verdict(verdict),
            _limits(records, limits),
            _rights(records),
            Section(title="Lineage", blocks=(Listing(text=render_text(lineage)),)),
        ),
    )
    return ModelCard(markdown=markdown(page), html=html(page))


def _intended_use(records: Mapping[str, StageRecord]) -> Section:
    domain = _find(records, ("export", "evaluate", "train"), "domain")
    language = _find(records, ("export", "evaluate", "train"), "language")
    sentence = (
        "Transcribing recorded or live speech of the domain that it was trained on. Not for "
        "identifying people, not for decisions about people without a human who reads along."
    )
    facts = (f"Domain: {domain}", f"Language: {language}")
    return Section(title="Intended use", blocks=(Text(text=sentence), Bullets(items=facts)))


def _data(records: Mapping[str, StageRecord]) -> Section:
    rows = []
    for stage in ("ingest", "validate", "split"):
        record = records.get(stage)
        figures = record.figures if record else {}
        rows += [(f"{stage} {name}", _show(value)) for name, value in _scalars(figures)]
    table = Table(head=("figure", "value"), rows=tuple(rows))
    return Section(title="Data", blocks=(table if rows else Text(text=_ABSENT),))


def _performance(records: Mapping[str, StageRecord]) -> Section:
    evaluate = records.get("evaluate")
    intervals = dict(_intervals(evaluate.figures if evaluate else {}))
    rows = tuple(
        (name, f"{i.point:.2%}", f"{i.low:.2%} to {i.high:.2%}") for name, i in intervals.items()
    )
    note = "95 % intervals, whole speakers resampled: how far a rate would move with other people."
    blocks = (Table(head=("measure", "rate", "interval"), rows=rows), Text(text=note))
    return Section(title="Performance", blocks=blocks if rows else (Text(text=_ABSENT),))


def _worst_slices(records: Mapping[str, StageRecord]) -> Section:
    evaluate = records.get("evaluate")
    scores = list(_slices(evaluate.figures if evaluate else {}))
    large = [entry for entry in scores if entry[1].words >= MINIMUM_SLICE_WORDS]
    worst = sorted(large, key=lambda entry: -entry[1].wer.point)[:WORST_SLICES]
    rows = tuple(
        (
            place,
            f"{score.name} = {score.value}",
            f"{score.wer.point:.2%}",
            f"{score.wer.low:.2%} to {score.wer.high:.2%}",
            str(score.words),
        )
        for place, score in worst
    )
    small = len(scores) - len(large)
    note = f"{small} slices with fewer than {MINIMUM_SLICE_WORDS} words are left out."
    table = Table(head=("in", "slice", "WER", "interval", "words"), rows=rows)
    blocks = (table, Text(text=note)) if rows else (Text(text=f"{_ABSENT}. {note}"),)
    return Section(title="Worst slices", blocks=blocks)


def _quantisation(records: Mapping[str, StageRecord], verdict: Verdict) -> Section:
    rows = []
    for stage in ("quantize", "benchmark"):
        record = records.get(stage)
        figures = record.figures if record else {}
        rows += [(f"{stage} {name}", _show(value)) for name, value in _scalars(figures)]
    export = records.get("export")
    half = export.figures.get("fp16") if export else None
    if isinstance(half, Mapping):
        rows += [(f"fp16 {name}", _show(value)) for name, value in _scalars(half)]
    lead = Text(text=f"This card speaks of the variant {verdict.variant}.")
    table = Table(head=("figure", "value"), rows=tuple(rows))
    blocks = (lead, table) if rows else (lead, Text(text=_ABSENT))
    return Section(title="Quantisation against fp32", blocks=blocks)


def _verdict(verdict: Verdict) -> Section:
    rows = tuple(
        (reason.outcome, reason.gate, reason.metric, _show(reason.value), reason.why)
        for reason in verdict.reasons
    )
    word = "passed" if verdict.passed else "refused"
    table = Table(head=("outcome", "gate", "metric", "value", "why"), rows=rows)
    return Section(title=f"Gates: {word}", blocks=(table,))


def _limits(records: Mapping[str, StageRecord], limits: tuple[str, ...]) -> Section:
    items = [
        "Speech outside the domain, other languages and several people at once were not measured.",
        "The figures hold for the recordings named above; conditions that are not in them are "
        "unknown, not good.",
    ]
    ingest = records.get("ingest")
    corpora = ingest.params.get("corpora", []) if ingest else []
    if list(corpora) == ["builtin"]:
        items.append(
            "It learned from synthetic voices only and was measured on synthetic voices only: "
            "expect much worse on people."
        )
    return Section(title="Limits", blocks=(Bullets(items=(*items, *limits)),))


def _rights(records: Mapping[str, StageRecord]) -> Section:
    rows = []
    for name in ("licences", "consent"):
        for stage, record in records.items():
            for place, value in _named(record.figures, name):
                rows.append((f"{stage} {place}", _show(value)))
    absent = Text(text=f"Licences and consent: {_ABSENT} in any record.")
    table = Table(head=("where", "value"), rows=tuple(rows))
    return Section(title="Licences and consent", blocks=(table if rows else absent,))


def _find(records: Mapping[str, StageRecord], stages: tuple[str, ...], name: str) -> str:
    for stage in stages:
        record = records.get(stage)
        for source in (record.figures, record.params) if record else ():
            if source.get(name):
                return _show(source[name])
    return _ABSENT


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"low", "point", "high"}


def _is_slice(value: Any) -> bool:
    return isinstance(value, Mapping) and {"name", "value", "words", "wer"} <= value.keys()


def _walk(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below ``value`` with its dotted place; elements of lists share the list's."""
    yield place, value
    if _is_interval(value) or _is_slice(value):
        return
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _walk(entry, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _walk(entry, place)


def _intervals(figures: Mapping[str, Any]) -> Iterator[tuple[str, Interval]]:
    for place, value in _walk(figures):
        if _is_interval(value):
            yield place, Interval.from_json(value)


def _slices(figures: Mapping[str, Any]) -> Iterator[tuple[str, SliceScore]]:
    for place, value in _walk(figures):
        if _is_slice(value):
            yield place, SliceScore.from_json(value)


def _scalars(figures: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in figures.items():
        if isinstance(value, Mapping) and not _is_interval(value):
            yield from ((f"{key}.{name}", entry) for name, entry in _scalars(value))
        elif isinstance(value, bool | int | float | str) or _is_interval(value):
            yield key, value


def _named(figures: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for place, value in _walk(figures):
        if place.split(".")[-1] == name:
            yield place, value
            return


def _show(value: Any) -> str:
    if _is_interval(value):
        return f"{value['point']:.4g} ({value['low']:.4g} to {value['high']:.4g})"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_show(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_show(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return _ABSENT if value is None else str(value)
