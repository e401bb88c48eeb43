"""A plain folder: each recording beside a ``.txt`` of the same name."""

from pathlib import Path

from data.sources.item import Scan, split_named

LAYOUT = "folder"
_LOSSLESS = (".wav", ".flac", ".aif", ".aiff", ".au", ".caf", ".w64", ".sph")
_LOSSY = (".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".mka", ".amr", ".wma")
_SUFFIXES = frozenset((*_LOSSLESS, *_LOSSY))


def matches(root: Path) -> bool:
    """Whether the folder has this layout."""
    return any(path.suffix.lower() in _SUFFIXES for path in root.rglob("*"))


def scan(into: Scan) -> None:
    """Read every recording below the folder; a sub-folder such as ``test`` names the split."""
    audio = [
        path
        for path in sorted(into.root.rglob("*"))
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not _hidden(into, path)
    ]
    for path in audio:
        _scan_file(into, path)
    heard = {path.with_suffix("") for path in audio}
    for path in sorted(into.root.rglob("*.txt")):
        beside_audio = any(other.parent == path.parent for other in heard)
        if path.with_suffix("") not in heard and beside_audio and not _is_notice(path):
            into.refuse(into.origin(path), "has no recording beside it", "restore or drop it")


def _hidden(into: Scan, path: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(into.root).parts)


def _is_notice(path: Path) -> bool:
    return path.stem.upper() in ("README", "LICENSE", "LICENCE", "NOTICE")


def _scan_file(into: Scan, path: Path) -> None:
    origin = into.origin(path)
    transcript = path.with_suffix(".txt")
    try:
        text = " ".join(transcript.read_bytes().decode("utf-8-sig").split())
    except FileNotFoundError:
        into.refuse(origin, "has no transcript", f"write what is said to {transcript.name}")
        return
    except UnicodeDecodeError:
        into.refuse(into.origin(transcript), "is not UTF-8", "save the file as UTF-8")
        return
    folders = path.relative_to(into.root).parts[:-1]
    splits = (split_named(folder) for folder in folders)
    speaker = folders[-1] if folders and into.options.speaker_from_folder else ""
    into.add(
        source_id=origin,
        origin=origin,
        path=path,
        text=text,
        speaker=speaker,
        split=next((split for split in splits if split), ""),
    )
