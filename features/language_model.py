"""Word n-gram language models: our own Witten-Bell estimate, and fast scoring of any ARPA file.

A state is the shortest history that still matters to the next word, as a tuple of word ids, so
that equal futures share one memo entry. Scores are natural logarithms throughout; only the ARPA
text is in base 10.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from features.arpa import LanguageModelError, NgramTable, parse_arpa, read_arpa

State = tuple[int, ...]
Ngram = tuple[str, ...]

_MEMO_ENTRIES = 200_000  # about 40 MB; then the memo starts again
_NO_UNKNOWN_LN = -100.0 * math.log(10.0)  # KenLM's choice where an ARPA file has no <unk>
_START_LOG10 = -99.0  # <s> is a context and never predicted


class ArpaModel:
    """An n-gram model with back-off. Never changes after loading; safe to share by threads."""

    def __init__(self, table: NgramTable) -> None:
        self.order = table.order
        self._ids = table.ids
        self._logp = table.logp
        self._backoff = table.backoff
        self._unknown = table.ids.get("<unk>", -1)
        self._logp.setdefault((self._unknown,), _NO_UNKNOWN_LN)
        # Only a history that some n-gram extends, or that carries a weight, can matter later.
        self._contexts = {gram[:-1] for gram in table.logp} | {
            gram for gram, weight in table.backoff.items() if weight != 0.0
        }
        self._memo: dict[tuple[State, int], tuple[float, State]] = {}
        self.start: State = self._shorten((table.ids["<s>"],))

    @classmethod
    def load(cls, path: Path) -> "ArpaModel":
        """Read an ARPA file."""
        return cls(read_arpa(path))

    @classmethod
    def from_text(cls, text: str, *, name: str = "lm.arpa") -> "ArpaModel":
        """Parse ARPA text."""
        return cls(parse_arpa(text, name=name))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that it can predict, sorted, without ``<s>``, ``</s>`` and ``<unk>``."""
        return tuple(sorted(set(self._ids) - {"<s>", "</s>", "<unk>"}))

    def is_known(self, word: str) -> bool:
        """Whether the model has a unigram of its own for ``word``."""
        return word in self._ids

    def score(self, state: State, word: str) -> tuple[float, State]:
        """ln p(word | state) and the state after it; an unknown word scores as ``<unk>``."""
        return self._score(state, self._ids.get(word, self._unknown))

    def score_end(self, state: State) -> float:
        """ln p(</s> | state)."""
        return self._score(state, self._ids["</s>"])[0]

    def sentence_logp(self, words: Sequence[str]) -> float:
        """ln p of a whole sentence, its end included."""
        state, total = self.start, 0.0
        for word in words:
            logp, state = self.score(state, word)
            total += logp
        return total + self.score_end(state)

    def perplexity(self, sentences: Iterable[str]) -> float:
        """Per predicted word, sentence ends counted and unknown words scored as ``<unk>``."""
        total, count = 0.0, 0
        for sentence in sentences:
            words = sentence.split()
            total += self.sentence_logp(words)
            count += len(words) + 1
        if count == 0:
            raise LanguageModelError("perplexity of no sentences", mend="give at least one")
        return math.exp(-total / count)

    def _score(self, state: State, word: int) -> tuple[float, State]:
        key = (state, word)
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            found = self._memo[key] = (self._logp_of(state, word), self._shorten((*state, word)))
        return found

    def _logp_of(self, state: State, word: int) -> float:
        weight = 0.0
        for begin in range(len(state)):
            history = state[begin:]
            logp = self._logp.get((*history, word))
            if logp is not None:
                return weight + logp
            weight += self._backoff.get(history, 0.0)
        return weight + self._logp[(word,)]

    def _shorten(self, history: State) -> State:
        history = history[-(self.order - 1) :] if self.order > 1 else ()
        while history and history not in self._contexts:
            history = history[1:]
        return history


def train_witten_bell(sentences: Iterable[str], *, order: int = 3) -> str:
    """An interpolated Witten-Bell model of ``sentences`` as ARPA text, deterministic.

    p(w|h) = (c(hw) + t(h) p(w|h')) / (c(h) + t(h)), t(h) = distinct words seen after h. Below the
    unigrams lies the uniform distribution over vocabulary, ``</s>`` and ``<unk>``, which is how
    ``<unk>`` gets its share.
    """
    if order < 1:
        raise LanguageModelError("must be at least 1", item="order")
    counts = _count(sentences, order)
    if not counts[1]:
        raise LanguageModelError("no sentence to train on", mend="give a non-empty training text")
    totals: Counter[Ngram] = Counter()
    types: Counter[Ngram] = Counter()
    for size in range(1, order + 1):
        for gram, count in counts[size].items():
            totals[gram[:-1]] += count
            types[gram[:-1]] += 1
    probabilities = _interpolate(counts, totals, types, order)
    weights = {h: types[h] / (totals[h] + types[h]) for h in totals if h}
    return _render(probabilities, weights, order)


def _count(sentences: Iterable[str], order: int) -> list[Counter[Ngram]]:
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order + 1)]
    for sentence in sentences:
        words = ("<s>", *sentence.split(), "</s>")
        for marker in ("<s>", "</s>", "<unk>"):
            if marker in words[1:-1]:
                raise LanguageModelError(f"the text holds the marker {marker}", item=sentence[:60])
        for end in range(1, len(words)):
            for size in range(1, min(order, end + 1) + 1):
                counts[size][words[end - size + 1 : end + 1]] += 1
    return counts


def _interpolate(
    counts: list[Counter[Ngram]], totals: Counter[Ngram], types: Counter[Ngram], order: int
) -> dict[Ngram, float]:
    vocabulary = {gram[0] for gram in counts[1]} | {"</s>", "<unk>"}
    mass = totals[()] + types[()]
    share = types[()] / mass / len(vocabulary)
    probabilities: dict[Ngram, float] = {
        (word,): counts[1][(word,)] / mass + share for word in vocabulary
    }
    for size in range(2, order + 1):
        for gram, count in counts[size].items():
            history = gram[:-1]
            lower = probabilities[gram[1:]]
            probabilities[gram] = (count + types[history] * lower) / (
                totals[history] + types[history]
            )
    return probabilities


def _render(probabilities: dict[Ngram, float], weights: dict[Ngram, float], order: int) -> str:
    logs = {gram: math.log10(value) for gram, value in probabilities.items()}
    logs[("<s>",)] = _START_LOG10
    by_size: list[list[Ngram]] = [[] for _ in range(order + 1)]
    for gram in sorted(logs):
        by_size[len(gram)].append(gram)
    lines = ["\\data\\", *(f"ngram {n}={len(by_size[n])}" for n in range(1, order + 1))]
    for size in range(1, order + 1):
        lines += ["", f"\\{size}-grams:"]
        for gram in by_size[size]:
            line = f"{logs[gram]:.7f}\t{' '.join(gram)}"
            if gram in weights and size < order:
                line += f"\t{math.log10(weights[gram]):.7f}"
            lines.append(line)
    return "\n".join([*lines, "", "\\end\\", ""])
