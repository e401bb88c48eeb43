"""The report: self-contained, truthful, escaped, readable without colour or sight."""

import base64
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from data.scoring import score
from governance.records import Interval
from training.evaluate import EvaluationResult, summarise
from training.report import Chart, ReportData, render_report
from training.reporting.alignment import Clip, alignment_html
from training.reporting.charts import Curve, interval_bar, line_chart, nice_ticks
from training.reporting.tables import BaselineRow, VariantRow

VOID = {"meta", "link", "br", "img", "input", "path", "rect", "circle", "polyline"}


class Page(HTMLParser):
    """Checks nesting and collects what a test asks about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def result(mode: str = "stream", *, hyps: tuple[str, ...] = ()) -> EvaluationResult:
    refs = ("one large tea", "two small <b>teas</b>", "a coffee", "no milk")
    texts = hyps or ("one large sea", "two teas", "a a coffee", "no milk")
    scored = [
        score(f"id{n:030d}", f"s{n % 2}", ref, hyp,
              slices={"SNR": "under 10 dB" if n % 2 else "30 dB and more", "speaker": f"s{n % 2}"})
        for n, (ref, hyp) in enumerate(zip(refs, texts, strict=True))
    ]  # fmt: skip
    return summarise(scored, engine="onnx", mode=mode, decoder="lm", seed=1, resamples=200)


def full_report(**changes: object) -> ReportData:
    fields: dict[str, object] = {
        "title": "cafe v3 <script>alert(1)</script>",
        "subtitle": "orders & questions",
        "results": [result(), result("full")],
        "charts": [
            Chart(
                title="Loss", y_label="nats", curves=[
                    Curve(label="train", steps=[0, 10, 20], values=[3.0, float("nan"), 1.0]),
                    Curve(label="dev", steps=[0, 20], values=[3.2, 1.4]),
                ],
            )
        ],
        "variants": [
            VariantRow(name="fp32", size_mb=16.0, file_rtf=Interval(low=1, point=2, high=3)),
            VariantRow(name="int8", size_mb=4.4, note="refused: not faster here"),
        ],
        "baselines": [
            BaselineRow(name="no acoustics", wer=Interval(low=0.7, point=0.8, high=0.9))
        ],
        "facts": {"commit": "abc"},
    }  # fmt: skip
    return ReportData(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    html = render_report(full_report())
    page = Page(html)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "img", "object")]
    references = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "poster", "srcset") and value
    ]
    assert references and all(value.startswith("#") for value in references)
    assert "http" not in html.replace("http-equiv", "") and "@import" not in html
    assert "url(" not in html
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_what_people_said_is_text_and_never_markup() -> None:
    html = render_report(full_report())
    assert "<script" not in html and "&lt;script&gt;" in html


def test_links_lead_to_sections_that_exist() -> None:
    page = Page(render_report(full_report()))
    ids = {attributes.get("id") for _, attributes in page.tags}
    targets = {a["href"] for t, a in page.tags if t == "a"}
    assert {"#modes", "#slices", "#variants", "#worst", "#baselines", "#training"} <= targets
    assert all(target is not None and target[1:] in ids for target in targets)


def test_the_headline_is_the_first_result() -> None:
    page = " ".join(Page(render_report(full_report())).text)
    wer = 100 * result().wer.point
    assert f"{wer:.1f}\u202f%" in page and "Word error rate, stream, lm" in page


def test_parts_without_figures_are_left_out() -> None:
    html = render_report(full_report(charts=(), variants=(), baselines=(), facts={}))
    for name in ("variants", "training", "baselines", "origin"):
        assert f'id="{name}"' not in html


def test_players_hold_the_bytes_and_only_for_the_utterances_shown() -> None:
    flac = b"fLaC-not-really"
    clips = {f"id{n:030d}": Clip(content=flac, media_type="audio/flac") for n in range(4)}
    html = render_report(full_report(clips=clips, worst=2))
    players = [a for t, a in Page(html).tags if t == "audio"]
    assert len(players) == 2
    source = str(players[0]["src"])
    assert source.startswith("data:audio/flac;base64,")
    assert base64.b64decode(source.partition(",")[2]) == flac
    assert "recorded speech and transcripts" in html


def test_without_content_no_word_of_a_transcript_is_in_the_page() -> None:
    html = render_report(full_report(worst=0))
    assert "Personal content" not in html
    assert not re.search(r"\b(coffee|milk|sea)\b", html)


def test_differences_are_marked_by_word_and_shape_and_not_by_colour_alone() -> None:
    html = alignment_html("one large tea", "one sea now")
    said = re.findall(r'class="said">(\w+)', html)
    assert sorted(said) == sorted(
        {"sub": "substituted", "del": "deleted", "ins": "inserted"}[kind]
        for kind in re.findall(r'<li class="(sub|del|ins)"', html)
    )
    assert said and '<li class="equal"><span class="ref">one</span>' in html


def test_every_chart_says_its_figures() -> None:
    page = Page(render_report(full_report()))
    charts = [a for t, a in page.tags if t == "svg"]
    assert len(charts) > 8
    assert all(a.get("role") == "img" and a.get("aria-label") for a in charts)
    tables = [a for t, a in page.tags if t == "th"]
    assert all(a.get("scope") in ("row", "col") for a in tables)


def test_an_interval_bar_stays_inside_its_box() -> None:
    bar = interval_bar(Interval(low=-0.2, point=0.5, high=3.0), full_scale=1.0, label="x")
    numbers = [float(n) for n in re.findall(r"[MH](\d+\.\d)", bar)]
    assert min(numbers) == 0.0 and max(numbers) == 240.0


def test_curves_without_a_finite_point_draw_nothing() -> None:
    empty = Curve(label="x", steps=[1, 2], values=[float("nan"), float("inf")])
    assert line_chart([empty], title="t", x_label="x", y_label="y") == ""


def test_long_curves_are_thinned() -> None:
    long = Curve(label="x", steps=range(10_000), values=[1.0] * 10_000)
    html = line_chart([long], title="t", x_label="x", y_label="y")
    points = re.search(r'points="([^"]*)"', html)
    assert points is not None and len(points[1].split()) <= 300


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.037), (3.0, 12_345.0), (-2.0, 5.0)])
def test_ticks_are_round_and_span_the_data(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 3 <= len(ticks) <= 8
    steps = {round(b - a, 9) for a, b in pairwise(ticks)}
    assert len(steps) == 1


def test_a_report_needs_a_result() -> None:
    with pytest.raises(ValueError, match="at least one"):
        render_report(full_report(results=[]))
