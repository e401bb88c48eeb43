"""Which of the five layouts a folder has, and the scan that follows."""

from collections.abc import Callable
from pathlib import Path

from data.sources import common_voice, folder, kaldi, librispeech, manifest_jsonl
from data.sources.item import Scan, SourceError, SourceOptions

# From the most to the least particular: nearly anything is a folder with audio.
_MATCHES: dict[str, Callable[[Path], bool]] = {
    manifest_jsonl.LAYOUT: manifest_jsonl.matches,
    common_voice.LAYOUT: common_voice.matches,
    kaldi.LAYOUT: kaldi.matches,
    librispeech.LAYOUT: librispeech.matches,
    folder.LAYOUT: folder.matches,
}
_SCANS: dict[str, Callable[[Scan], None]] = {
    manifest_jsonl.LAYOUT: manifest_jsonl.scan,
    common_voice.LAYOUT: common_voice.scan,
    kaldi.LAYOUT: kaldi.scan,
    librispeech.LAYOUT: librispeech.scan,
    folder.LAYOUT: folder.scan,
}
LAYOUTS = tuple(_SCANS)
_NAME_A_CORPUS = "name a corpus folder, a manifest (.jsonl) or a Common Voice table (.tsv)"


def detect_layout(root: Path) -> str:
    """The name of the folder's layout."""
    if not root.is_dir():
        raise SourceError(
            "there is no such folder" if not root.exists() else "is not a folder",
            item=str(root),
            mend=_NAME_A_CORPUS,
        )
    for layout, matches in _MATCHES.items():
        if matches(root):
            return layout
    raise SourceError(
        "holds no corpus: no manifest.jsonl, no Common Voice table beside clips/, no wav.scp and "
        "text, no *.trans.txt, and no audio files",
        item=str(root),
        mend="put a .txt with the transcript beside each recording, or write a manifest.jsonl",
    )


def scan(source: Path, *, options: SourceOptions | None = None, layout: str = "auto") -> Scan:
    """Every usable recording and every problem of a corpus; nothing is decoded yet.

    ``source`` is the corpus folder, or the file in it that lists the recordings: of several
    manifests in one folder the named one is read.
    """
    if layout != "auto" and layout not in _SCANS:
        raise SourceError(f"layout {layout!r} is unknown", mend=f"use auto or {', '.join(LAYOUTS)}")
    root, listing = (source.parent, source) if source.is_file() else (source, None)
    found = layout
    if layout == "auto":
        found = _layout_of_listing(listing) if listing else detect_layout(root)
    if not root.is_dir():
        raise SourceError("there is no such folder", item=str(root), mend=_NAME_A_CORPUS)
    into = Scan(root=root, options=options or SourceOptions(), layout=found, listing=listing)
    _SCANS[found](into)
    return into


def _layout_of_listing(listing: Path) -> str:
    if listing.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return manifest_jsonl.LAYOUT
    if listing.suffix.lower() == ".tsv":
        return common_voice.LAYOUT
    if listing.name in kaldi.TABLES:
        return kaldi.LAYOUT
    raise SourceError(
        "is not a folder and no file that lists recordings",
        item=str(listing),
        mend=_NAME_A_CORPUS,
    )
