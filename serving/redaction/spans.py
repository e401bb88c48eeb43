"""Which words of a text are hidden, as what, and which may yet turn out to be."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from serving.redaction import mail, runs
from serving.redaction.kinds import kinds_of
from serving.redaction.names import IntroducedNames, NameRecognizer
from serving.redaction.policy import RedactionPolicy
from serving.redaction.tokens import Shape, Token, lex

INTRODUCED = IntroducedNames()
PENDING = "redacted"  # kind of a run that is not over: what it is shows later
_SETTLED_TOKENS = 3  # a partial's last words are still revised


@dataclass(frozen=True, kw_only=True)
class Span:
    """Words ``start`` to ``end`` (exclusive)."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was found in words."""

    spans: tuple[Span, ...]  # ordered and apart
    pending: tuple[Span, ...]  # the same with everything that is not certain yet hidden too
    open_from: int  # from here on the meaning depends on later words; the number of words if none


def analyse(
    words: Sequence[str], policy: RedactionPolicy, names: NameRecognizer = INTRODUCED
) -> Analysis:
    """Look at a whole text; every decision before ``open_from`` holds whatever follows."""
    tokens = lex(words)
    found_runs = runs.find_runs(tokens)
    found: list[Span] = []
    if "email" in policy.kinds:
        found += [Span(start=a, end=b, kind="email") for a, b in mail.find_mail(tokens)]
    for run in found_runs:
        kinds = [kind for kind in kinds_of(run, tokens) if kind in policy.kinds]
        found += [Span(start=run.start, end=run.end, kind=kind) for kind in kinds[:1]]
    if "any_number" in policy.kinds:
        found += _quantities(tokens)
    if "name" in policy.kinds:
        found += [Span(start=a, end=b, kind="name") for a, b in names.find(words)]
    spans = _apart(found)
    opened = _opened(tokens, words, found_runs, policy, names)
    unsure = [*opened, *_unsettled(tokens, found_runs, policy)]
    return Analysis(
        spans=spans,
        pending=_apart([*found, *unsure]),
        open_from=_before(spans, min((span.start for span in opened), default=len(words))),
    )


def _opened(
    tokens: Sequence[Token],
    words: Sequence[str],
    found_runs: Sequence[runs.Run],
    policy: RedactionPolicy,
    names: NameRecognizer,
) -> list[Span]:
    """Stretches at the end that later words may continue."""
    matter = [run for run in found_runs if _matters(run, policy)]
    starts = [runs.open_from(tokens, matter)]
    if "email" in policy.kinds:
        starts.append(mail.mail_open_from(tokens))
    if "name" in policy.kinds:
        starts.append(names.open_from(words))
    count = len(tokens)
    return [Span(start=start, end=count, kind=PENDING) for start in starts if start < count]


def _matters(run: runs.Run, policy: RedactionPolicy) -> bool:
    digits = bool(run.digits) or run.month
    return policy.letters_matter if not digits else policy.digits_matter


def _unsettled(
    tokens: Sequence[Token], found_runs: Sequence[runs.Run], policy: RedactionPolicy
) -> list[Span]:
    """Runs of a partial that its revision may still lengthen, and all of three or more."""
    recent = len(tokens) - _SETTLED_TOKENS
    return [
        Span(start=run.start, end=run.end, kind=PENDING)
        for run in found_runs
        if _matters(run, policy) and (run.end > recent or len(run.chars) >= 3)
    ]


def _quantities(tokens: Sequence[Token]) -> list[Span]:
    return [
        Span(start=at, end=at + 1, kind="any_number")
        for at, token in enumerate(tokens)
        if token.shape is Shape.QUANTITY
    ]


_RANKS = {"email": 0, "card": 1, "iban": 2, PENDING: 9}


def _apart(found: Sequence[Span]) -> tuple[Span, ...]:
    """Overlapping spans become one, of the weightier kind."""
    joined: list[Span] = []
    for span in sorted(found, key=lambda span: (span.start, -span.end)):
        before = joined[-1] if joined else None
        if before is None or span.start >= before.end:
            joined.append(span)
            continue
        kind = min(before.kind, span.kind, key=lambda name: _RANKS.get(name, 5))
        joined[-1] = replace(before, end=max(before.end, span.end), kind=kind)
    return tuple(joined)


def _before(spans: Sequence[Span], at: int) -> int:
    """``at``, or the start of the span that it would cut."""
    for span in spans:
        if span.start < at < span.end:
            return span.start
    return at
