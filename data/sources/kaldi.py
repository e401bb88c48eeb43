"""Kaldi data folders: ``wav.scp`` and ``text``, with ``utt2spk`` and ``segments`` if there are any.

The folder itself, or its sub-folders such as ``train`` and ``test``, which then name the split.
"""

from pathlib import Path

from data.sources.item import Scan, split_named

LAYOUT = "kaldi"
TABLES = ("wav.scp", "text")


def matches(root: Path) -> bool:
    """Whether the folder has this layout."""
    return bool(_folders(root))


def scan(into: Scan) -> None:
    """Read every data folder."""
    for folder in [into.root] if into.listing else _folders(into.root):
        _scan_folder(into, folder)


def _folders(root: Path) -> list[Path]:
    candidates = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return [path for path in candidates if all((path / f).is_file() for f in TABLES)]


def _scan_folder(into: Scan, folder: Path) -> None:
    recordings = _table(into, folder / "wav.scp")
    speakers = {key: value for key, (value, _) in _table(into, folder / "utt2spk").items()}
    segments = _table(into, folder / "segments")
    spoken = _table(into, folder / "text")
    split = "" if folder == into.root else split_named(folder.name)
    for name, (text, origin) in spoken.items():
        span = _span(into, segments, name)
        if span is None:
            continue
        recording, start_s, end_s = span
        path = _recording(into, folder, recordings.get(recording), recording, origin)
        if path is not None:
            into.add(
                source_id=name,
                origin=origin,
                path=path,
                text=text,
                speaker=speakers.get(name, ""),
                split=split,
                start_s=start_s,
                end_s=end_s,
            )
    for name, (_, origin) in (segments or recordings).items():
        if name not in spoken:
            into.refuse(origin, f"{name} has no transcript", "add a line to text")


def _table(into: Scan, path: Path) -> dict[str, tuple[str, str]]:
    """Key to (rest of the line, file:line); a repeated key is a problem."""
    rows: dict[str, tuple[str, str]] = {}
    for number, line in into.lines(path) if path.is_file() else ():
        key, *rest = line.strip().split(maxsplit=1)
        origin = into.origin(path, number)
        if key in rows:
            into.refuse(origin, f"id {key} was already used at {rows[key][1]}", "drop one of them")
            continue
        rows[key] = (rest[0] if rest else "", origin)
    return rows


def _span(
    into: Scan, segments: dict[str, tuple[str, str]], name: str
) -> tuple[str, float, float | None] | None:
    if not segments:
        return name, 0.0, None
    if name not in segments:
        return name, 0.0, None
    value, origin = segments[name]
    try:
        recording, start, end = value.split()
        start_s, end_s = float(start), float(end)
    except ValueError:
        into.refuse(origin, "is not `utterance recording start end`", "mend the line")
        return None
    if not 0 <= start_s < end_s and end_s != -1:
        into.refuse(origin, f"runs from {start_s} s to {end_s} s", "mend the times")
        return None
    return recording, start_s, None if end_s == -1 else end_s


def _recording(
    into: Scan, folder: Path, listed: tuple[str, str] | None, name: str, origin: str
) -> Path | None:
    if listed is None:
        into.refuse(origin, f"recording {name} is not in wav.scp", "add it to wav.scp")
        return None
    value, listed_at = listed
    if value.endswith("|"):
        into.refuse(
            listed_at,
            "is a command; commands from a corpus are never run",
            "run it yourself and name the audio file it makes",
        )
        return None
    # Recipes write paths from where they run: the data folder, or the folder around it.
    beside = (folder / value).exists()
    return into.audio_path(value, listed_at, base=folder if beside else into.root)
