"""``manifest.jsonl``: one JSON object a line, with at least ``path`` and ``text``."""

import json
from pathlib import Path
from typing import Any

from data.sources.item import Scan, split_named

LAYOUT = "manifest"
FILE = "manifest.jsonl"
_PATH_FIELDS = ("path", "audio_filepath")
_STRINGS = ("id", "text", "speaker", "language", "split", "licence", "source", "kind")


def matches(root: Path) -> bool:
    """Whether the folder has this layout."""
    return (root / FILE).is_file()


def scan(into: Scan) -> None:
    """Read every row."""
    path = into.listing or into.root / FILE
    for number, line in into.lines(path):
        origin = into.origin(path, number)
        row = _row(into, origin, line)
        if row is not None:
            _add(into, origin, row)


def _row(into: Scan, origin: str, line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError as error:
        into.refuse(origin, f"is not JSON ({error})", "write one JSON object a line")
        return None
    if not isinstance(row, dict):
        into.refuse(origin, "is not a JSON object", "write one JSON object a line")
        return None
    row["path"] = next((row[name] for name in _PATH_FIELDS if row.get(name)), None)
    if not isinstance(row["path"], str):
        into.refuse(origin, "names no audio file", 'add "path", relative to the corpus folder')
        return None
    for name in _STRINGS:
        if not isinstance(row.get(name) or "", str):
            # not the value itself: a transcript belongs in no message
            kind = type(row[name]).__name__
            into.refuse(origin, f'"{name}" holds {kind}, not text', f'put "{name}" in quotes')
            return None
    return row


def _add(into: Scan, origin: str, row: dict[str, Any]) -> None:
    kind = row.get("kind") or "speech"
    if kind != "speech":
        into.skip(origin, f"is {kind}, not speech")
        return
    split = split_named(row.get("split") or "")
    if row.get("split") and not split:
        into.refuse(
            origin, f"split {row['split']!r} is unknown", "use train, dev or test, or leave it out"
        )
        return
    consent = row.get("consent")
    if consent is not None and not (
        isinstance(consent, list) and all(isinstance(purpose, str) for purpose in consent)
    ):
        into.refuse(
            origin, "consent is not a list of purposes", 'write "consent": ["train", "eval"]'
        )
        return
    path = into.audio_path(row["path"], origin)
    if path is None:
        return
    into.add(
        source_id=row.get("id") or row["path"],
        origin=origin,
        path=path,
        text=row.get("text") or "",
        speaker=row.get("speaker") or "",
        split=split,
        language=row.get("language") or "",
        licence=row.get("licence") or "",
        consent=None if consent is None else tuple(consent),
        source=row.get("source") or "",
    )
