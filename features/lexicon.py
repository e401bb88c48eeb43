"""A closed vocabulary: the words that may come out, and the tree that holds a beam to them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from features.language_model import ArpaModel, State
from features.tokens import TokenTable
from governance.canonical import write_atomic
from governance.errors import ConfigError

_EXACT_WORDS = 64  # up to so many words the lookahead asks for each in its context
_MEMO_ENTRIES = 200_000


class LexiconError(ConfigError):
    """A lexicon that is empty, unreadable or spelt with foreign characters."""


class Lookahead:
    """The best that a language model can give to a word of which only some letters are known.

    A beam that waits for the word's end to ask the language model prunes the right word before;
    with this guess a beam of 8 finds what one of 16 or more finds without.
    """

    def __init__(self, lm: ArpaModel, words_below: list[list[str]]) -> None:
        self._lm, self._words_below = lm, words_below
        self._memo: dict[tuple[State, int], float] = {}
        unigram = {word: lm.score((), word)[0] for word in words_below[0]}
        self._unigram = [max(unigram[word] for word in below) for below in words_below]

    def is_bound(self, node: int) -> bool:
        """Whether `guess` is an upper bound here: exact where few words remain."""
        return len(self._words_below[node]) <= _EXACT_WORDS

    def guess(self, state: State, node: int) -> float:
        """Largest ln p after ``state`` of the words below ``node``; unigram where they are many."""
        if not self.is_bound(node):
            return self._unigram[node]
        key = (state, node)
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            words = self._words_below[node]
            found = self._memo[key] = max(self._lm.score(state, word)[0] for word in words)
        return found


@dataclass(frozen=True, eq=False)
class Trie:
    """Prefix tree over token ids; node 0 is the empty prefix. Shared by all decoders."""

    children: list[dict[int, int]]  # node -> {token: node}
    is_word: list[bool]  # node -> whether a word ends here
    words_below: list[list[str]]  # node -> words that begin with this prefix, sorted
    _lookahead: WeakKeyDictionary[ArpaModel, Lookahead] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )

    def lookahead(self, lm: ArpaModel) -> Lookahead:
        """The lookahead of ``lm`` over this tree; built once per model."""
        found = self._lookahead.get(lm)
        if found is None:
            found = self._lookahead[lm] = Lookahead(lm, self.words_below)
        return found


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Sorted distinct words."""

    words: tuple[str, ...]
    _tries: dict[str, Trie] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_words(cls, words: Iterable[str]) -> "Lexicon":
        """The distinct words, sorted; empty strings are dropped."""
        distinct = tuple(sorted(set(words) - {""}))
        if not distinct:
            raise LexiconError("the lexicon has no word", mend="train on at least one transcript")
        for word in distinct:
            if len(word.split()) != 1 or word != word.strip():
                raise LexiconError("a word must not hold spaces", item=repr(word))
        return cls(words=distinct)

    @classmethod
    def from_sentences(cls, sentences: Iterable[str]) -> "Lexicon":
        """The vocabulary of a training text."""
        return cls.from_words(word for sentence in sentences for word in sentence.split())

    @classmethod
    def from_file(cls, path: Path) -> "Lexicon":
        """Read ``lexicon.txt``: one word per line."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise LexiconError("lexicon not found", item=str(path)) from None
        except UnicodeDecodeError as error:
            raise LexiconError(f"not UTF-8 at byte {error.start}", item=str(path)) from None
        try:
            return cls.from_words(line.strip() for line in lines)
        except LexiconError as error:
            item = f"{path}: {error.item}" if error.item else str(path)
            raise LexiconError(error.message, item=item, mend=error.mend) from None

    def to_file(self, path: Path) -> None:
        """Write one word per line."""
        write_atomic(path, "".join(f"{word}\n" for word in self.words))

    def trie(self, table: TokenTable) -> Trie:
        """The prefix tree over ``table``; built once per table."""
        key = table.digest
        if key not in self._tries:
            self._tries[key] = _build_trie(self.words, table)
        return self._tries[key]


def _build_trie(words: Iterable[str], table: TokenTable) -> Trie:
    trie = Trie(children=[{}], is_word=[False], words_below=[[]])
    for word in words:
        node = 0
        trie.words_below[0].append(word)
        for token in table.encode(word):
            if token not in trie.children[node]:
                trie.children[node][token] = len(trie.children)
                trie.children.append({})
                trie.is_word.append(False)
                trie.words_below.append([])
            node = trie.children[node][token]
            trie.words_below[node].append(word)
        trie.is_word[node] = True
    return trie
