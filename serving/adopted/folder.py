"""The folder of an adopted model: complete or refused, identified by its bytes, with its licence."""

import re
from dataclasses import dataclass
from pathlib import Path

from governance.canonical import bytes_digest, file_digest
from governance.errors import ConfigError

WEIGHTS = "model.bin"
_NEEDED = (WEIGHTS, "config.json", "tokenizer.json")
_VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LICENCE = re.compile(r"^license:\s*[\"']?([A-Za-z0-9][A-Za-z0-9 .+-]{0,63})", re.MULTILINE)
_MEND = (
    "name a whole folder in CTranslate2's form, as `ct2-transformers-converter --model "
    "openai/whisper-tiny --copy_files tokenizer.json preprocessor_config.json` writes it"
)


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder that holds everything, and what identifies it."""

    path: Path
    digest: str  # over the names and bytes of every file
    licence: str | None  # as its model card or its LICENSE says; None: it says nothing


def open_folder(path: Path) -> ModelFolder:
    """Refuse an incomplete folder before anything tries to load it, or asks the network for it."""
    if not path.is_dir():
        raise ConfigError("is no folder", item=str(path), mend=_MEND)
    missing = [name for name in _NEEDED if not (path / name).is_file()]
    if not any((path / name).is_file() for name in _VOCABULARIES):
        missing.append(_VOCABULARIES[0])
    if missing:
        raise ConfigError(f"lacks {', '.join(missing)}", item=str(path), mend=_MEND)
    return ModelFolder(path=path, digest=_digest(path), licence=_licence(path))


def require_name(name: str) -> None:
    """A name that requests, headers and addresses can carry."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "is no name for a model", item=repr(name[:80]), mend="use letters, digits and . _ -"
        )


def _digest(path: Path) -> str:
    files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
    lines = [f"{one.name} {file_digest(one)}\n" for one in files]
    return bytes_digest("".join(lines).encode())


def _licence(path: Path) -> str | None:
    """A model card's ``license:``, or the first line of a licence file."""
    card, text = path / "README.md", path / "LICENSE"
    if card.is_file():
        front = card.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
        if front.startswith("---") and (found := _LICENCE.search(front)):
            return found[1].strip()
    if text.is_file():
        lines = text.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[0].strip()[:80] if lines else None
    return None
