"""Prefixes of a beam search: a tree of spelt texts, each carrying its language-model score.

What a prefix is worth beyond acoustics depends on its letters alone, so it is computed once, when
the prefix is first spelt. Spaces between words are one token however often the model emits them,
and the empty prefix counts as just after a space: a leading space changes nothing.
"""

import math
from collections.abc import Hashable

from features.hotwords import START, HotwordGraph
from features.language_model import ArpaModel, State
from features.lexicon import Trie
from features.tokens import TokenTable

_PAUSE_INSIDE = 0.1  # chance of an endpoint's silence between two words of one sentence


class Prefix:
    """One spelt text. Identity is equality: a text is one node below its parent."""

    __slots__ = (
        "ahead", "bonus", "boundary", "children", "depth", "future", "hope", "hot", "node",
        "parent", "state", "token", "word",
    )  # fmt: skip

    def __init__(
        self, parent: "Prefix | None", token: int, *, word: str, state: State, bonus: float,
        node: int, ahead: float, hope: float, hot: int, future: Hashable,
    ) -> None:  # fmt: skip
        self.parent = parent
        self.token = token  # the last one; the space for the empty prefix
        self.depth: int = parent.depth + 1 if parent else 0
        self.boundary = not word  # at the start or just after a space
        self.word = word  # letters since the last space
        self.state = state  # language-model history before `word`
        self.bonus = bonus  # alpha * ln p + beta over the complete words, and what hotwords earn
        self.node = node  # of `word` in the lexicon's tree
        self.ahead = ahead  # guess of what `word` will add to bonus; used for ranking only
        self.hope = hope  # no child's bonus + ahead exceeds it
        self.hot = hot  # place in the graph of the hotwords
        self.future = future  # equal where all later tokens will add the same
        self.children: dict[int, Prefix | None] = {}  # None: the lexicon forbids it


class Speller:
    """Makes prefixes: language-model fusion and the lexicon live here. One per utterance."""

    def __init__(
        self, table: TokenTable, *, alpha: float, beta: float, lm: ArpaModel | None,
        trie: Trie | None, hotwords: HotwordGraph | None = None,
    ) -> None:  # fmt: skip
        self._alpha, self._beta, self._lm, self._trie = alpha, beta, lm, trie
        self._space = table.space
        self._characters = [table.decode([token]) for token in range(table.size)]
        self._lookahead = trie.lookahead(lm) if trie is not None and lm is not None else None
        self._hotwords = hotwords
        # A language model only takes: one token cannot add more.
        self._gain = max(beta, 0.0) + (hotwords.most if hotwords else 0.0)

    def root(self, after: Prefix | None = None) -> Prefix:
        """The empty prefix of a new sentence, or of what follows a pause ``after`` a prefix.

        Where the language model does not expect the sentence to end there, it goes on.
        """
        state: State = ()
        if self._lm is not None:
            goes_on = after is not None and self._end_chance(after) < _PAUSE_INSIDE
            state = after.state if after is not None and goes_on else self._lm.start
        return Prefix(
            None, self._space, word="", state=state, bonus=0.0, node=0, ahead=0.0, hope=self._gain,
            hot=START, future=(self._space, state, 0, START),
        )  # fmt: skip

    def child(self, prefix: Prefix, token: int) -> Prefix | None:
        """The prefix with one more token; None where no word of the lexicon goes that way.

        Never asked for a space just after a space: that is the same prefix.
        """
        try:
            return prefix.children[token]
        except KeyError:
            made = self._end_word(prefix) if token == self._space else self._spell(prefix, token)
            prefix.children[token] = made
            return made

    def end_score(self, prefix: Prefix) -> float:
        """What the sentence's end adds to a prefix whose last word is complete."""
        ends = self._alpha * self._lm.score_end(prefix.state) if self._lm else 0.0
        return ends + self._left(prefix)

    def pause_score(self, prefix: Prefix) -> float:
        """What a pause adds to a prefix: the sentence's end, or a speaker who thinks."""
        if self._lm is None:
            return self._left(prefix)
        ends = self._end_chance(prefix)
        pause = self._alpha * math.log(ends + _PAUSE_INSIDE * (1.0 - ends))
        return pause + self._left(prefix)

    def _left(self, prefix: Prefix) -> float:
        return self._hotwords.leave(prefix.hot) if self._hotwords else 0.0

    def _heated(self, prefix: Prefix, token: int) -> tuple[float, int]:
        """The bonus and the place among the hotwords after one more token."""
        if self._hotwords is None:
            return prefix.bonus, prefix.hot
        earned, hot = self._hotwords.step(prefix.hot, token)
        return prefix.bonus + earned, hot

    def _end_chance(self, prefix: Prefix) -> float:
        return math.exp(self._lm.score_end(prefix.state)) if self._lm is not None else 1.0

    def complete(self, prefix: Prefix) -> Prefix:
        """Make an unfinished word of the lexicon whole, for an utterance cut in mid-word.

        The likeliest word of which at least half was spelt; where there is none the fragment goes.
        """
        assert self._trie is not None
        spelt = len(prefix.word)
        words = [w for w in self._trie.words_below[prefix.node] if len(w) <= 2 * spelt]
        if not words:
            while not prefix.boundary and prefix.parent is not None:
                prefix = prefix.parent
            return prefix
        lm, state = self._lm, prefix.state
        word = max(words, key=lambda word: lm.score(state, word)[0]) if lm else words[0]
        whole: Prefix | None = prefix
        for character in word[spelt:]:
            assert whole is not None
            whole = self.child(whole, self._characters.index(character))
        ended = self.child(whole, self._space) if whole else None
        assert ended is not None
        return ended

    def _spell(self, prefix: Prefix, token: int) -> Prefix | None:
        bonus, hot = self._heated(prefix, token)
        node, ahead, hope = 0, 0.0, bonus + self._gain
        if self._trie is not None:
            found = self._trie.children[prefix.node].get(token)
            if found is None:
                return None
            node = found
            if self._lookahead is not None:
                ahead = self._alpha * self._lookahead.guess(prefix.state, node) + self._beta
                if self._lookahead.is_bound(node):
                    hope = bonus + ahead + (self._hotwords.most if self._hotwords else 0.0)
        word = prefix.word + self._characters[token]
        # The tree's node stands for the letters; without a tree only a language model needs them.
        spelt = word if self._trie is None and self._lm is not None else node
        return Prefix(
            prefix, token, word=word, state=prefix.state, bonus=bonus, node=node,
            ahead=ahead, hope=hope, hot=hot, future=(token, prefix.state, spelt, hot),
        )  # fmt: skip

    def _end_word(self, prefix: Prefix) -> Prefix | None:
        if self._trie is not None and not self._trie.is_word[prefix.node]:
            return None
        heated, hot = self._heated(prefix, self._space)
        bonus, state = heated + self._beta, prefix.state
        if self._lm is not None:
            logp, state = self._lm.score(state, prefix.word)
            bonus += self._alpha * logp
        return Prefix(
            prefix, self._space, word="", state=state, bonus=bonus, node=0, ahead=0.0,
            hope=bonus + self._gain, hot=hot, future=(self._space, state, 0, hot),
        )  # fmt: skip


def common_prefix(prefixes: set[Prefix]) -> Prefix:
    """The longest prefix that all of them begin with."""
    while len(prefixes) > 1:
        deepest = max(prefix.depth for prefix in prefixes)
        prefixes = {
            prefix.parent if prefix.depth == deepest and prefix.parent else prefix
            for prefix in prefixes
        }
    return next(iter(prefixes))


def tokens_of(prefix: Prefix) -> list[int]:
    """The tokens of a prefix, first to last."""
    tokens = []
    while prefix.parent is not None:
        tokens.append(prefix.token)
        prefix = prefix.parent
    return tokens[::-1]


def forget_dead_branches(live: set[Prefix], trunk: Prefix) -> Prefix:
    """Free what no live prefix descends from; gives the new trunk (their common prefix).

    Above the trunk nothing grows any more, so only the way back to the root is kept.
    """
    common = common_prefix(live)
    above = common.parent
    while above is not None and above.depth >= trunk.depth:
        above.children = {}
        above = above.parent
    kept: set[Prefix] = {common}
    for prefix in live:
        while prefix not in kept:
            kept.add(prefix)
            assert prefix.parent is not None
            prefix = prefix.parent
    for prefix in kept:
        prefix.children = {t: child for t, child in prefix.children.items() if child in kept}
    return common
