"""What an adapter hands on: recordings with transcripts, and a named problem for each bad row."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from governance.errors import AuricleError

SPLITS = ("train", "dev", "test")
_SPLIT_ALIASES = {
    "training": "train",
    "valid": "dev",
    "val": "dev",
    "validation": "dev",
    "development": "dev",
    "eval": "test",
    "testing": "test",
}


UNKNOWN_LICENCE = "unknown"
_NO_LICENCE = frozenset(("", "unknown", "none", "n/a", "na", "?", "tbd", "todo"))
_USUAL_CONSENT = ("eval", "train")


def names_licence(licence: str) -> bool:
    """Whether the words name a licence; ``unknown`` and its like name none."""
    return licence.strip().lower() not in _NO_LICENCE


class SourceError(AuricleError):
    """A folder that cannot be read as a corpus at all."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What holds for recordings whose corpus does not say otherwise."""

    language: str = "en"
    """Language tag."""
    licence: str = UNKNOWN_LICENCE
    """Licence."""
    consent: tuple[str, ...] | None = None
    """Purposes that the recordings may serve; None: training and evaluation where the licence is
    known, and nothing where it is not."""
    source: str = ""
    """Where the corpus came from; the folder's name if empty."""
    speaker_from_folder: bool = False
    """Where the corpus names no speaker, take the name of the folder around the recording (the
    innermost one below the corpus folder that names no split)."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that was left out or looks wrong, named so that it can be found and mended."""

    item: str
    """File and line, such as ``manifest.jsonl:12``."""
    message: str
    """What is wrong."""
    mend: str = ""
    """What to do about it; empty if nothing needs doing."""
    severity: str = "refused"
    """``refused``: left out because it is bad; ``skipped``: left out rightly; ``noted``: kept."""

    def __str__(self) -> str:
        text = f"{self.item}: {self.message}"
        return f"{text.rstrip('.')}. Mend: {self.mend}" if self.mend else text


@dataclass(frozen=True, kw_only=True)
class SourceItem:
    """One recording as its corpus describes it; nothing has been decoded yet."""

    source_id: str
    """The corpus's own name for it."""
    origin: str
    """File and line that describe it."""
    path: Path
    """The audio file."""
    text: str
    """Transcript as given."""
    speaker: str
    """The corpus's own name for the speaker; empty if unknown."""
    language: str
    """Language tag."""
    split: str
    """``train``, ``dev``, ``test`` or empty."""
    licence: str
    """Licence."""
    consent: tuple[str, ...]
    """Purposes, sorted."""
    source: str
    """Where the recording came from."""
    start_s: float = 0.0
    """Where it begins inside the file."""
    end_s: float | None = None
    """Where it ends inside the file; None is the end of the file."""


@dataclass(kw_only=True)
class Scan:
    """Items and problems as they are found; the adapters' common workbench."""

    root: Path
    """The corpus folder."""
    options: SourceOptions
    """Defaults for what the corpus leaves open."""
    layout: str = ""
    """Name of the layout that was read."""
    listing: Path | None = None
    """The one file of ``root`` that lists the recordings, where somebody named one."""
    items: list[SourceItem] = field(default_factory=list)
    """Usable recordings, in the corpus's order."""
    problems: list[Problem] = field(default_factory=list)
    """What was left out, and why."""
    _seen: dict[str, str] = field(default_factory=dict)

    def refuse(self, item: str, message: str, mend: str = "") -> None:
        """Note a bad row; the scan goes on."""
        self.problems.append(Problem(item=item, message=message, mend=mend))

    def skip(self, item: str, message: str) -> None:
        """Note a row that is rightly left out, such as noise without speech."""
        self.problems.append(Problem(item=item, message=message, severity="skipped"))

    def origin(self, path: Path, line: int | None = None) -> str:
        """``file:line``, the file relative to the corpus folder."""
        relative = path.relative_to(self.root).as_posix()
        return relative if line is None else f"{relative}:{line}"

    def lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Numbered lines that are not empty; one that is not UTF-8 becomes a problem."""
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    self.refuse(
                        self.origin(path, number),
                        "is not UTF-8",
                        "save the file as UTF-8 (iconv -t utf-8)",
                    )
                    continue
                if line.strip():
                    yield number, line

    def audio_path(self, relative: str, origin: str, *, base: Path | None = None) -> Path | None:
        """The audio file that a manifest names, if it may be opened and exists.

        A manifest is somebody else's: it may not reach out of its folder. Links that lie inside are
        followed, since data stores keep their files behind links.
        """
        posix = PurePosixPath(relative.replace("\\", "/"))
        absolute = posix.is_absolute() or PureWindowsPath(relative).is_absolute()
        if absolute or ".." in posix.parts:
            self.refuse(
                origin,
                f"its path {relative!r} leads out of the corpus folder",
                "name audio by a path relative to the corpus folder, without ..",
            )
            return None
        path = (base or self.root) / posix
        if not _is_file(path):
            self.refuse(
                origin, f"its audio file {relative} is missing", "restore it or drop the row"
            )
            return None
        return path

    def add(
        self,
        *,
        source_id: str,
        origin: str,
        path: Path,
        text: str,
        speaker: str = "",
        split: str = "",
        language: str = "",
        licence: str = "",
        consent: tuple[str, ...] | None = None,
        source: str = "",
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> None:
        """Keep an item, with the options filled in; a repeated id or no transcript is a problem."""
        if source_id in self._seen:
            self.refuse(
                origin,
                f"id {source_id} was already used at {self._seen[source_id]}",
                "give each recording an id of its own",
            )
            return
        self._seen[source_id] = origin
        if not text.strip():
            self.refuse(origin, "has no transcript", "write what is said, or drop the row")
            return
        options = self.options
        licence = licence or options.licence
        if consent is None:
            consent = options.consent
        if consent is None:
            consent = _USUAL_CONSENT if names_licence(licence) else ()
        self.items.append(
            SourceItem(
                source_id=source_id,
                origin=origin,
                path=path,
                text=text.strip(),
                speaker=speaker or self._folder_speaker(path),
                language=language or options.language,
                split=split,
                licence=licence,
                consent=tuple(sorted(set(consent))),
                source=source or options.source or self.root.name,
                start_s=start_s,
                end_s=end_s,
            )
        )

    def _folder_speaker(self, path: Path) -> str:
        folders = path.relative_to(self.root).parts[:-1] if self.options.speaker_from_folder else ()
        return next((name for name in reversed(folders) if not split_named(name)), "")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that no file system takes
        return False


def split_named(name: str) -> str:
    """The split that a word such as ``validation`` or ``train-clean-100`` names; empty if none."""
    word = name.lower().replace("_", "-").split("-")[0]
    word = _SPLIT_ALIASES.get(word, word)
    return word if word in SPLITS else ""
