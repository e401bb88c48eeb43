"""Addresses of e-mail as they are said: "j o h n at example dot com"."""

from collections.abc import Sequence

from serving.redaction import lexicon
from serving.redaction.tokens import Shape, Token

_LOCAL_CONTENT = frozenset({Shape.LETTER, Shape.DIGIT, Shape.ALNUM, Shape.TIMES, Shape.SCALE})
_LOCAL_LINKS = lexicon.words_of("dot dash hyphen underscore plus minus point")
_BEFORE_LOCAL = lexicon.words_of("address is it's its to email mail e-mail at be")
_NO_LOCAL = lexicon.words_of(
    "us me look visit find found available online site website page it here is are was be them him "
    "her you people staff meet stay arrive arrived call tickets"
)
_LOCAL_WORDS = 10  # after "my email is" an address may begin with as many words
_DOMAIN_TOKENS = 4
Place = tuple[int, int]


def find_mail(tokens: Sequence[Token]) -> list[Place]:
    """Places of addresses, from the first to past the last token."""
    found = [(at, at + 1) for at, token in enumerate(tokens) if token.shape is Shape.MAIL]
    for at, token in enumerate(tokens):
        if token.text != "at":
            continue
        end = _domain_end(tokens, at)
        start = _local_start(tokens, at)
        if end is not None and start < at:
            found.append((start, end))
    return found


def mail_open_from(tokens: Sequence[Token]) -> int:
    """Where an address begins that later words may complete; the number of tokens if none."""
    count = len(tokens)
    for at in range(max(0, count - _DOMAIN_TOKENS - 3), count):
        if tokens[at].text != "at" or not _domain_may_go_on(tokens, at):
            continue
        start = _local_start(tokens, at)
        local = tokens[start:at]
        if local and (_is_announced(tokens, start) or local[-1].shape in _LOCAL_CONTENT):
            return start
    starts = (_announced_local(tokens), _spelled_local(tokens))
    return min(start for start in (*starts, count) if start is not None)


def _spelled_local(tokens: Sequence[Token]) -> int | None:
    """ "j dot smith" at the very end, before its "at"."""
    start = len(tokens)
    while start and _is_local(tokens, start - 1):
        start -= 1
    local = tokens[start:]
    joined = any(token.text in ("dot", "underscore") for token in local)
    return start if joined or any(token.shape is Shape.LETTER for token in local) else None


def _domain_end(tokens: Sequence[Token], at: int) -> int | None:
    """Past the domain that follows ``at``; None where there is none."""
    end = None
    for index in range(at + 1, min(at + 2 + _DOMAIN_TOKENS, len(tokens))):
        token = tokens[index]
        if token.text == "at":
            return end
        if token.text in lexicon.MAIL_HOSTS:
            end = index + 1
        if token.text in ("dot", "point") and index > at + 1:
            return _labels_end(tokens, index) or end
    return end


def _labels_end(tokens: Sequence[Token], dot: int) -> int | None:
    """Past "dot com", "dot co dot uk", "dot c o m"."""
    end = None
    while dot < len(tokens) and tokens[dot].text in ("dot", "point"):
        stop = dot + 1
        while stop < len(tokens) and tokens[stop].shape is Shape.LETTER:
            stop += 1
        if stop == dot + 1 and stop < len(tokens) and tokens[stop].shape is Shape.WORD:
            label = tokens[stop].text
            stop += 1
            if label in lexicon.TOP_DOMAINS:
                end = stop
        elif stop > dot + 1:
            end = stop
        dot = stop
    return end


def _domain_may_go_on(tokens: Sequence[Token], at: int) -> bool:
    """Nothing but a domain so far between ``at`` and the end."""
    end = _domain_end(tokens, at)
    if end is not None:
        return end == len(tokens) or (end == len(tokens) - 1 and tokens[end].text == "dot")
    return len(tokens) - at - 1 <= _DOMAIN_TOKENS + 1


def _local_start(tokens: Sequence[Token], at: int) -> int:
    """Where the name before ``at`` begins."""
    start = at
    while start and _is_local(tokens, start - 1):
        start -= 1
    word = tokens[at - 1] if start == at and at else None
    if word is not None and word.shape is Shape.WORD and word.text not in _NO_LOCAL:
        start = at - 1
    for cue in range(at - 1, max(-1, at - _LOCAL_WORDS - 4), -1):
        if tokens[cue].text in lexicon.MAIL_CUES:
            begin = _after_cue(tokens, cue)
            return begin if begin < at and at - begin <= _LOCAL_WORDS else start
        if tokens[cue].text == "at" or tokens[cue].shape is Shape.MASK:
            break
    return start


def _is_local(tokens: Sequence[Token], at: int) -> bool:
    token = tokens[at]
    if token.shape in _LOCAL_CONTENT or token.text in _LOCAL_LINKS:
        return True
    if token.shape is not Shape.WORD or token.text == "at":
        return False
    beside = (*tokens[max(0, at - 1) : at], *tokens[at + 1 : at + 2])
    return any(other.text in _LOCAL_LINKS for other in beside)  # "john" in "john dot smith"


def _after_cue(tokens: Sequence[Token], cue: int) -> int:
    begin = cue + 1
    while begin < len(tokens) and tokens[begin].text in _BEFORE_LOCAL:
        begin += 1
    return begin


def _is_announced(tokens: Sequence[Token], start: int) -> bool:
    return any(
        token.text in lexicon.MAIL_CUES
        for token in tokens[max(0, start - len(_BEFORE_LOCAL)) : start]
    )


def _announced_local(tokens: Sequence[Token]) -> int | None:
    """After "my email is": every word may be the address's until its "at"."""
    for cue in range(len(tokens) - 1, max(-1, len(tokens) - _LOCAL_WORDS - 5), -1):
        if tokens[cue].shape is Shape.MASK or tokens[cue].text == "at":
            return None
        if tokens[cue].text in lexicon.MAIL_CUES:
            begin = _after_cue(tokens, cue)
            said = {token.text for token in tokens[cue + 1 : begin]}
            waiting = "is" in said or "address" in said
            return begin if waiting and len(tokens) - begin <= _LOCAL_WORDS else None
    return None
