"""A plain folder: each recording beside a ``.txt`` of the same name."""

from pathlib import Path

from data.sources.item import Scan, split_named

LAYOUT = "folder"
# What a recording may be called; what it is, its content says when it is decoded.
_SUFFIXES = frozenset(
    """.wav .wave .flac .aif .aiff .aifc .au .snd .caf .w64 .rf64 .bwf .sph .nist .wv .tta .voc .pvf
    .avr .htk .paf .sds .sf .ircam .svx .8svx .wve .xi .sox .ape .tak .dsf .alac
    .mp3 .mp2 .mpga .ogg .oga .ogv .opus .m4a .m4b .mp4 .m4v .mov .3gp .aac .webm .mka .mkv .amr
    .wma .wmv .asf .avi .ts .mts .m2ts .flv .mpg .mpeg .vob .nut .g722 .gsm .ac3 .eac3 .dts .rm .ra
    .mxf .dss .ds2 .qcp .spx""".split()  # noqa: SIM905 - a table to read
)


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
    splits = (split_named(folder) for folder in path.relative_to(into.root).parts[:-1])
    into.add(
        source_id=origin,
        origin=origin,
        path=path,
        text=text,
        split=next((split for split in splits if split), ""),
    )
