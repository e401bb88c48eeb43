"""The worst utterances: words side by side, colour never the only sign, audio where asked for."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from data.scoring import Op, ScoredUtterance, align
from training.reporting.charts import percent

_SAID = {"sub": "substituted", "del": "deleted", "ins": "inserted"}
_GAP = '<span class="gap" aria-hidden="true">·</span>'


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Encoded audio for one player."""

    content: bytes
    """A whole FLAC or WAV file."""
    media_type: str
    """ "audio/flac" or "audio/wav"."""


def alignment_html(reference: str, hypothesis: str) -> str:
    """Reference above hypothesis, one column per word; differences are struck or underlined."""
    columns = "".join(_column(op) for op in align(reference.split(), hypothesis.split()))
    return f'<ol class="align" aria-label="reference above, recognised below">{columns}</ol>'


def _column(op: Op) -> str:
    ref = escape(op.ref) if op.ref else _GAP
    hyp = escape(op.hyp) if op.hyp else _GAP
    said = f'<span class="said">{_SAID[op.kind]}: </span>' if op.kind in _SAID else ""
    return (
        f'<li class="{op.kind}"><span class="ref">{said}{ref}</span>'
        f'<span class="hyp">{hyp}</span></li>'
    )


def player_html(clip: Clip, *, label: str) -> str:
    """An audio element with its bytes inside the page; nothing is fetched."""
    encoded = base64.b64encode(clip.content).decode("ascii")
    return (
        f'<audio controls preload="none" aria-label="{escape(label)}" '
        f'src="data:{escape(clip.media_type)};base64,{encoded}"></audio>'
    )


def worst_html(items: Sequence[ScoredUtterance], clips: Mapping[str, Clip]) -> str:
    """The list of worst utterances, in the order given."""
    rows = "".join(_utterance(item, clips.get(item.utterance_id)) for item in items)
    legend = "".join(
        f'<li class="key {name}">{name}</li>' for name in ("substituted", "deleted", "inserted")
    )
    return f'<ul class="legend">{legend}</ul><ol class="worst">{rows}</ol>'


def _utterance(item: ScoredUtterance, clip: Clip | None) -> str:
    words = item.words
    slices = " · ".join(escape(value) for value in item.slices.values())
    player = player_html(clip, label=f"recording {item.utterance_id[:12]}") if clip else ""
    return (
        f'<li><div class="meta"><b>{words.errors} of {words.ref} words wrong</b>'
        f"<span>{percent(words.rate)}</span><span>{slices}</span>"
        f"<code>{escape(item.utterance_id[:12])}</code></div>"
        f"{alignment_html(item.ref, item.hyp)}{player}</li>"
    )
