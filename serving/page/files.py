"""The page's own files: read once, served with a tag, and nothing that is not in the list.

What pages share lies in ``NAME.part`` and stands in them as a comment of that name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governance.canonical import bytes_digest

FOLDER = Path(__file__).resolve().parent / "static"
_PART = re.compile(rb"[ ]*<!-- (\w+\.part) -->\n")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """One file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def page_files(folder: Path = FOLDER) -> Mapping[str, PageFile]:
    """Every file of the page by its name."""
    return {path.name: _read(path) for path in sorted(folder.iterdir()) if path.suffix in _TYPES}


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    if path.suffix == ".html":
        content = _PART.sub(lambda part: (path.parent / part[1].decode()).read_bytes(), content)
    digest = bytes_digest(content).removeprefix("sha256:")
    return PageFile(content=content, media_type=_TYPES[path.suffix], etag=f'"{digest[:20]}"')
