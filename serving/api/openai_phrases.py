"""What ``prompt`` and ``keywords[]`` ask for: phrases that the decoder should expect.

A prompt may be a list of terms or prose. Its phrases stand between commas, full stops and the like;
one of more than eight words is prose, which no decoder of ours can use, and is counted like one
that the model's alphabet cannot write.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from data.text import normalise
from serving.problems import ApiProblem

PROMPT_CHARACTERS, KEYWORDS, KEYWORD_CHARACTERS = 4_096, 200, 100
_PHRASE_WORDS = 8
_BREAK = re.compile(r"[,;:!?\n\r\t()\[\]\"“”…]|\.(?=\s|$)")


class Phrases(NamedTuple):
    """Distinct phrases in the model's alphabet, and how many were left out as unusable."""

    phrases: tuple[str, ...]
    left_out: int


def expected(prompt: str, keywords: Sequence[str]) -> Phrases:
    """The phrases of a request, refused where they are too many."""
    if len(prompt) > PROMPT_CHARACTERS:
        raise _refused("prompt", f"must have at most {PROMPT_CHARACTERS} characters")
    if len(keywords) > KEYWORDS:
        raise _refused("keywords", f"must be at most {KEYWORDS}")
    if any(len(keyword) > KEYWORD_CHARACTERS for keyword in keywords):
        raise _refused("keywords", f"must have at most {KEYWORD_CHARACTERS} characters each")
    given = dict.fromkeys(text.strip() for text in [*_BREAK.split(prompt), *keywords])
    read = [normalise(text) for text in given if any(map(str.isalnum, text))]
    usable = [phrase for phrase in read if 0 < len(phrase.split()) <= _PHRASE_WORDS]
    distinct = tuple(dict.fromkeys(usable))
    if len(distinct) > KEYWORDS:
        raise _refused("prompt", f"must name at most {KEYWORDS} phrases")
    return Phrases(distinct, len(read) - len(usable))


def _refused(name: str, why: str) -> ApiProblem:
    return ApiProblem(400, f"`{name}` {why}.", param=name, code="invalid_value")
