"""Phrases that a request expects: each letter that goes along with one earns a boost.

The graph is a tree of the phrases' tokens with ways to fall back (after Aho and Corasick): a text
that leaves a phrase before its end gives back all that it earned on the way, and may go on inside
another phrase whose beginning it has just said. A phrase begins and ends with a word: "tea" earns
nothing inside "steam". What a text has earned depends on its letters alone, so that chunk borders
change nothing, and a boost of 0 is no graph at all.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence

from features.lexicon import Lexicon
from features.tokens import TokenTable
from governance.errors import ConfigError

START = 0  # at the beginning of a word, in no phrase
OUTSIDE = -1  # inside a word that no phrase has


class HotwordGraph:
    """Never changes after it is made; safe to share by the decoders of a request."""

    def __init__(self, phrases: Iterable[Sequence[int]], *, space: int, boost: float) -> None:
        """``phrases`` are token ids without outer spaces; ``boost`` is in nats for each letter."""
        if not (math.isfinite(boost) and boost > 0):
            raise ConfigError("must be above 0", item="hotwords.boost")
        self._space, self._boost = space, boost
        self._next: list[dict[int, int]] = [{}]
        self._earned: list[float] = [0.0]  # on the way to a node, while it is not left
        self._kept: list[float] = [0.0]  # of it for good: the longest phrase that is complete
        self._fall: list[int] = [OUTSIDE]
        for phrase in phrases:
            self._add([*phrase, space])
        self._link()
        self.most = boost + max(self._earned[max(node, START)] for node in self._fall)
        """No step earns more."""

    def step(self, state: int, token: int) -> tuple[float, int]:
        """What one more token earns, mostly nothing, and the state after it."""
        earned, kept, node = self._earned_at(state), 0.0, state
        while node != OUTSIDE:
            found = self._next[node].get(token)
            if found is not None:
                return self._earned[found] - earned + kept, found
            kept = max(kept, self._kept[node])
            node = self._fall[node]
        return kept - earned, START if token == self._space else OUTSIDE

    def leave(self, state: int) -> float:
        """What the end of the text takes back of what an unfinished phrase has earned."""
        kept, node = 0.0, state
        while node != OUTSIDE:
            kept, node = max(kept, self._kept[node]), self._fall[node]
        return kept - self._earned_at(state)

    def _earned_at(self, state: int) -> float:
        return 0.0 if state == OUTSIDE else self._earned[state]

    def _add(self, tokens: Sequence[int]) -> None:
        node = START
        for token in tokens:
            if token not in self._next[node]:
                self._next[node][token] = len(self._next)
                self._next.append({})
                self._earned.append(self._earned[node] + self._boost)
                self._kept.append(0.0)
                self._fall.append(OUTSIDE)
            node = self._next[node][token]
        self._kept[node] = self._earned[node]

    def _link(self) -> None:
        """Complete what is kept along each way, and find where each node falls back to."""
        queue = deque([START])
        while queue:
            node = queue.popleft()
            for token, child in self._next[node].items():
                self._kept[child] = max(self._kept[child], self._kept[node])
                fall = self._fall[node]
                while fall != OUTSIDE and token not in self._next[fall]:
                    fall = self._fall[fall]
                if fall != OUTSIDE:
                    self._fall[child] = self._next[fall][token]
                elif token == self._space:
                    self._fall[child] = START
                queue.append(child)


def hotword_graph(
    phrases: Iterable[str], table: TokenTable, lexicon: Lexicon | None, *, boost: float
) -> tuple[HotwordGraph | None, int]:
    """The graph of the phrases that can be spelt, and how many cannot.

    ``lexicon`` is what the decoder is held to: a word outside it can never come out.
    """
    known = None if lexicon is None else set(lexicon.words)
    usable, unusable = [], 0
    for phrase in dict.fromkeys(" ".join(phrase.split()) for phrase in phrases):
        words = phrase.split()
        spelt = all(letter in table.ids for letter in phrase)
        if not words or not spelt or (known is not None and not known.issuperset(words)):
            unusable += 1
        else:
            usable.append(table.encode(phrase))
    if not usable or boost == 0:
        return None, unusable
    return HotwordGraph(usable, space=table.space, boost=boost), unusable
