"""The character table: what the output axis of a CTC model means, one symbol per line.

The file is the ``tokens.txt`` that sherpa-onnx reads: ``symbol id``, the blank first, the space
between words shown as ``▁`` so that no line holds an invisible symbol.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from governance.canonical import bytes_digest, write_atomic
from governance.errors import ConfigError

BLANK = 0
BLANK_SYMBOL = "<blk>"
SPACE_SYMBOL = "▁"


class TokenError(ConfigError):
    """A token file that cannot be read, or a text that it cannot spell."""


@dataclass(frozen=True, kw_only=True)
class TokenTable:
    """An immutable map between characters and the ids of a model's output axis."""

    symbols: tuple[str, ...]  # as in the file, by id: "<blk>", "▁", "'", "a", ...
    ids: dict[str, int] = field(init=False, repr=False, compare=False)  # character -> id

    def __post_init__(self) -> None:
        _check_symbols(self.symbols)
        ids = {_character(symbol): index for index, symbol in enumerate(self.symbols) if index}
        object.__setattr__(self, "ids", ids)

    @classmethod
    def from_alphabet(cls, alphabet: str) -> "TokenTable":
        """The blank, then the distinct characters in code-point order: space, ``'``, ``a`` ..."""
        characters = sorted(set(alphabet) | {" "})
        return cls(symbols=(BLANK_SYMBOL, *(_symbol(character) for character in characters)))

    @classmethod
    def from_file(cls, path: Path) -> "TokenTable":
        """Read ``tokens.txt`` strictly; every complaint names the file and the line."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise TokenError("token file not found", item=str(path)) from None
        except UnicodeDecodeError as error:
            raise TokenError(f"not UTF-8 at byte {error.start}", item=str(path)) from None
        return cls.from_text(text, name=str(path))

    @classmethod
    def from_text(cls, text: str, *, name: str = "tokens.txt") -> "TokenTable":
        """Parse the content of a token file; ``name`` is what errors call it."""
        by_id: dict[int, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            symbol, token = _parse_line(line, item=f"{name} line {number}")
            if token in by_id:
                raise TokenError(f"id {token} is given twice", item=f"{name} line {number}")
            by_id[token] = symbol
        if sorted(by_id) != list(range(len(by_id))):
            missing = next(i for i in range(len(by_id)) if i not in by_id)
            raise TokenError(f"ids must run from 0 without a gap; {missing} is missing", item=name)
        try:
            return cls(symbols=tuple(by_id[index] for index in range(len(by_id))))
        except TokenError as error:
            raise TokenError(error.message, item=name, mend=error.mend) from None

    @property
    def size(self) -> int:
        """Number of tokens, the blank included: the width of the model's output axis."""
        return len(self.symbols)

    @property
    def space(self) -> int:
        """The id of the space between words."""
        return self.ids[" "]

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the file's bytes, as ONNX metadata and bundles carry it."""
        return bytes_digest(self.to_text().encode())

    def to_text(self) -> str:
        """The content of ``tokens.txt``."""
        return "".join(f"{symbol} {index}\n" for index, symbol in enumerate(self.symbols))

    def to_file(self, path: Path) -> None:
        """Write ``tokens.txt`` atomically."""
        write_atomic(path, self.to_text())

    def encode(self, text: str) -> list[int]:
        """The ids that spell ``text``; a character outside the table is an error naming it."""
        try:
            return [self.ids[character] for character in text]
        except KeyError as error:
            raise TokenError(
                f"character {error.args[0]!r} is not in the token table",
                item=repr(text[:60]),
                mend="normalise the text with data.text.normalise before encoding it",
            ) from None

    def decode(self, tokens: Iterable[int]) -> str:
        """The characters of ``tokens``; blanks are skipped, repeats are kept."""
        characters = []
        for token in tokens:
            if not 0 <= token < len(self.symbols):
                raise TokenError(f"token id {token} is outside 0..{len(self.symbols) - 1}")
            if token != BLANK:
                characters.append(_character(self.symbols[token]))
        return "".join(characters)


def _symbol(character: str) -> str:
    return SPACE_SYMBOL if character == " " else character


def _character(symbol: str) -> str:
    return " " if symbol == SPACE_SYMBOL else symbol


def _parse_line(line: str, *, item: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) != 2:
        raise TokenError(
            f"expected `symbol id`, found {line!r}", item=item, mend="write the space as ▁"
        )
    if not (fields[1].isascii() and fields[1].isdigit()):
        raise TokenError(f"{fields[1]!r} is not a token id", item=item)
    return fields[0], int(fields[1])


def _check_symbols(symbols: Sequence[str]) -> None:
    if not symbols or symbols[BLANK] != BLANK_SYMBOL:
        raise TokenError(f"token 0 must be {BLANK_SYMBOL}", mend="use a tokens.txt of this project")
    if SPACE_SYMBOL not in symbols:
        raise TokenError(f"the table has no word separator {SPACE_SYMBOL}")
    seen: set[str] = set()
    for index, symbol in enumerate(symbols):
        if symbol in seen:
            raise TokenError(f"symbol {symbol!r} is given twice")
        if index and (len(symbol) != 1 or symbol.isspace()):
            raise TokenError(f"symbol {symbol!r} of token {index} is not one visible character")
        seen.add(symbol)
