"""Mozilla Common Voice: ``train.tsv``, ``dev.tsv``, ``test.tsv`` beside ``clips/``."""

from pathlib import Path

from data.sources.item import SPLITS, Scan, SourceError, split_named

LAYOUT = "common-voice"
_CLIPS = "clips"
_WHOLE = "validated"
_REQUIRED = ("client_id", "path", "sentence")


def matches(root: Path) -> bool:
    """Whether the folder has this layout."""
    return (root / _CLIPS).is_dir() and any(
        (root / f"{name}.tsv").is_file() for name in (*SPLITS, _WHOLE)
    )


def scan(into: Scan) -> None:
    """Read the three splits; ``validated.tsv``, without splits, where there are none."""
    if into.listing is not None:
        _scan_table(into, into.listing, split_named(into.listing.stem))
        return
    splits = [split for split in SPLITS if (into.root / f"{split}.tsv").is_file()]
    for split in splits:
        _scan_table(into, into.root / f"{split}.tsv", split)
    if not splits:
        _scan_table(into, into.root / f"{_WHOLE}.tsv", "")


def _scan_table(into: Scan, table: Path, split: str) -> None:
    header: list[str] = []
    for number, line in into.lines(table):
        cells = line.split("\t")
        if not header:
            header = _header(into, table, cells)
            continue
        origin = into.origin(table, number)
        if len(cells) < len(header) - 1:
            into.refuse(
                origin, f"has {len(cells)} cells, the header {len(header)}", "mend or drop the row"
            )
            continue
        row = dict(zip(header, cells, strict=False))
        path = into.audio_path(row["path"], origin, base=into.root / _CLIPS)
        if path is not None:
            into.add(
                source_id=row["path"],
                origin=origin,
                path=path,
                text=row["sentence"],
                speaker=row["client_id"],
                split=split,
                language=row.get("locale", ""),
            )


def _header(into: Scan, table: Path, cells: list[str]) -> list[str]:
    missing = [name for name in _REQUIRED if name not in cells]
    if missing:
        raise SourceError(
            f"its first line names no column {', '.join(missing)}",
            item=into.origin(table, 1),
            mend="restore Common Voice's header line",
        )
    return cells
