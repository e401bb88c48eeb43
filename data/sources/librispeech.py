"""LibriSpeech: ``<split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt`` beside FLAC files."""

from pathlib import Path

from data.sources.item import Scan, split_named

LAYOUT = "librispeech"
_PATTERN = "*.trans.txt"
_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3", ".m4a")


def matches(root: Path) -> bool:
    """Whether the folder has this layout."""
    return next(root.rglob(_PATTERN), None) is not None


def scan(into: Scan) -> None:
    """Read every chapter; recordings without a line are named."""
    for transcript in sorted(into.root.rglob(_PATTERN)):
        named = {_scan_line(into, transcript, *numbered) for numbered in into.lines(transcript)}
        for audio in sorted(transcript.parent.iterdir()):
            if audio.suffix in _SUFFIXES and audio.stem not in named:
                into.refuse(
                    into.origin(audio),
                    "has no transcript",
                    f"add a line to {into.origin(transcript)}",
                )


def _scan_line(into: Scan, transcript: Path, number: int, line: str) -> str:
    origin = into.origin(transcript, number)
    name, _, text = line.strip().partition(" ")
    found = [
        name + suffix for suffix in _SUFFIXES if (transcript.parent / (name + suffix)).exists()
    ]
    path = into.audio_path(
        found[0] if found else name + _SUFFIXES[0], origin, base=transcript.parent
    )
    if path is not None:
        folders = transcript.relative_to(into.root).parts[:-1] or (into.root.name,)
        splits = (split_named(folder) for folder in (*folders, into.root.name))
        into.add(
            source_id=name,
            origin=origin,
            path=path,
            text=text,
            speaker=name.split("-")[0],
            split=next((split for split in splits if split), ""),
        )
    return name
