"""Building a corpus: somebody's folder in, immutable shards and a manifest out.

A corpus folder holds ``shard-*.tar``, ``manifest.parquet`` and ``datasheet.json``. Shards are never
edited: more data goes into further shards, and what changed in words only (a corrected transcript,
a withdrawn consent) changes the manifest alone.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.audio import MAX_DURATION_S, load_mono_16k
from data.datasheet import datasheet
from data.duplicates import Fingerprint, fingerprint, near_duplicates, originals
from data.manifest import Utterance, read_manifest, write_manifest
from data.prepare import Job, Prepared, described, prepare_all, source_digest
from data.shards import MAX_SHARD_BYTES, Placement, ShardWriter, read_member, shard_number
from data.sources.detect import scan
from data.sources.item import Problem, Scan, SourceItem, SourceOptions, names_licence
from governance.canonical import canonical_json, tree_digest, write_atomic
from governance.errors import AuricleError

MANIFEST_FILE = "manifest.parquet"
DATASHEET_FILE = "datasheet.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
Progress = Callable[[int, int], None]


class CorpusError(AuricleError):
    """A corpus that cannot be built at all; ``problems`` is what was wrong with each recording."""

    def __init__(
        self,
        message: str,
        *,
        item: str | None = None,
        mend: str | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message, item=item, mend=mend)
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How to build a corpus."""

    source: SourceOptions = field(default_factory=SourceOptions)
    """What holds where the corpus itself does not say."""
    layout: str = "auto"
    """Layout of the source folder; ``auto`` looks."""
    workers: int = 1
    """Processes that decode; the result does not depend on it."""
    max_shard_bytes: int = MAX_SHARD_BYTES
    """Size at which a shard is closed."""
    max_duration_s: float = MAX_DURATION_S
    """Longest recording to accept."""
    near_duplicates: bool = True
    """Whether to look for recordings that repeat another one in other clothes."""


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """What a build did."""

    name: str
    """Name of the corpus."""
    layout: str
    """Layout that was read."""
    accepted: int
    """Recordings that are new."""
    known: int
    """Recordings that were there before and came again."""
    updated: int
    """Of those, the ones whose words (transcript, speaker, consent, ...) changed."""
    total: int
    """Utterances in the manifest now."""
    audio_s: float
    """Seconds of audio in the manifest now."""
    without_licence: int
    """Utterances whose licence nobody named: the contract lets none of them in."""
    without_speaker: int
    """Utterances with neither speaker nor split: usually they can only train."""
    problems: tuple[Problem, ...]
    """Everything refused, skipped or noted, in the order of the source."""
    shards: tuple[str, ...]
    """Relative paths of all shards."""
    digest: str
    """Digest of the corpus folder."""
    seconds: float
    """Wall time of the build."""

    @property
    def refused(self) -> tuple[Problem, ...]:
        """The problems that cost a recording and want mending."""
        return tuple(problem for problem in self.problems if problem.severity == "refused")


def build_corpus(
    name: str,
    source: Path,
    out_root: Path,
    *,
    options: CorpusOptions | None = None,
    progress: Progress | None = None,
) -> CorpusReport:
    """Read ``source`` into ``out_root/<name>``; bad items are named and the good ones go on.

    Equal input gives equal bytes, whatever the number of workers. ``progress(done, total)`` is
    called for every recording.
    """
    started = time.monotonic()
    options = options or CorpusOptions()
    if not _NAME.fullmatch(name):
        raise CorpusError(
            f"{name!r} is no corpus name", mend="use lower-case letters, digits, - and _"
        )
    build = _Build(
        name, out_root, options, scan(source, options=options.source, layout=options.layout)
    )
    build.run(progress or (lambda done, total: None))
    rows = build.store()
    return CorpusReport(
        name=name,
        layout=build.found.layout,
        accepted=build.accepted,
        known=build.known,
        updated=build.updated,
        total=len(rows),
        audio_s=sum(row.duration_s for row in rows),
        without_licence=sum(not names_licence(row.licence) for row in rows),
        without_speaker=sum(not row.speaker and not row.split for row in rows),
        problems=tuple(build.found.problems),
        shards=tuple(sorted({row.shard for row in rows})),
        digest=tree_digest(build.folder),
        seconds=time.monotonic() - started,
    )


class _Build:
    """The state of one build: rows as they stand, and what the source adds to them."""

    def __init__(self, name: str, out_root: Path, options: CorpusOptions, found: Scan) -> None:
        self.name, self.out_root, self.options, self.found = name, out_root, options, found
        self.folder = out_root / name
        manifest = self.folder / MANIFEST_FILE
        before = read_manifest(manifest) if manifest.exists() else []
        self.before = {row.utterance_id: row for row in before}
        self.rows = dict(self.before)
        self.by_source = {row.source_digest: row.utterance_id for row in before}
        self.placements: dict[str, Placement] = {}
        self.prints: dict[str, Fingerprint] = {}
        self.origins: dict[str, SourceItem] = {}
        self.accepted = self.known = self.updated = 0
        self._require_shards()

    def run(self, progress: Progress) -> None:
        """Prepare and store every item."""
        first = 1 + max((shard_number(row.shard) for row in self.before.values()), default=-1)
        items = self.found.items
        # Near-constant memory: what is known needs no decoding, the rest passes one by one.
        repeated = [(item, self._known_id(item)) for item in items]
        fresh = prepare_all(
            (self._job(item) for item, known in repeated if not known),
            workers=self.options.workers,
        )
        with ShardWriter(
            self.folder, max_bytes=self.options.max_shard_bytes, first_number=first
        ) as writer:
            for done, (item, known) in enumerate(repeated, start=1):
                self._take(item, known or next(fresh), writer)
                progress(done, len(items))
            names = writer.close()
        for utterance_id, placement in self.placements.items():
            shard = f"{self.name}/{names[placement.number]}"
            self.rows[utterance_id] = replace(
                self.rows[utterance_id], shard=shard, offset=placement.offset
            )

    def _nothing_usable(self) -> CorpusError:
        """The first problem stands for all: its mend is the mend."""
        problems = self.found.problems
        if not problems:
            return CorpusError(
                "lists no recording",
                item=str(self.found.root),
                mend="add recordings with their transcripts",
            )
        first, count = problems[0], len(problems)
        return CorpusError(
            f"none of its recordings can be used ({count} problem{'s'[: count > 1]}; the first: "
            f"{first.item}: {first.message})",
            item=str(self.found.root),
            mend=first.mend or "mend the problems that are named",
            problems=tuple(problems),
        )

    def store(self) -> list[Utterance]:
        """Mark near duplicates, then write manifest and datasheet."""
        if not self.rows:
            raise self._nothing_usable()
        if self.options.near_duplicates and self.placements:
            self._mark_near_duplicates()
        rows = [self.rows[name] for name in sorted(self.rows)]
        write_atomic(
            self.folder / DATASHEET_FILE, canonical_json(datasheet(self.name, rows)) + "\n"
        )
        # Last: the manifest is what makes the new shards part of the corpus.
        write_manifest(self.folder / MANIFEST_FILE, rows)
        return rows

    def _known_id(self, item: SourceItem) -> str:
        return self.by_source.get(source_digest(item), "") if self.by_source else ""

    def _job(self, item: SourceItem) -> Job:
        return Job(
            item=item,
            corpus=self.name,
            max_duration_s=self.options.max_duration_s,
            fingerprinted=self.options.near_duplicates,
        )

    def _take(self, item: SourceItem, found: str | Prepared | Problem, writer: ShardWriter) -> None:
        if isinstance(found, Problem):
            self.found.problems.append(found)
            return
        name = found if isinstance(found, str) else found.utterance.utterance_id
        if name in self.origins:
            self._note_repetition(item, self.origins[name])
            return
        self.origins[name] = item
        if isinstance(found, Prepared):
            self.found.problems.extend(found.notes)
        if name in self.before:
            self._update(name, item)
        elif isinstance(found, Prepared):
            self.accepted += 1
            self.rows[name] = found.utterance
            self.placements[name] = writer.add(name, found.stored)
            if found.fingerprint is not None:
                self.prints[name] = found.fingerprint

    def _update(self, name: str, item: SourceItem) -> None:
        self.known += 1
        renewed = replace(self.before[name], **described(item, self.name))
        self.updated += renewed != self.before[name]
        self.rows[name] = renewed

    def _note_repetition(self, item: SourceItem, first: SourceItem) -> None:
        differs = "" if item.text == first.text else ", and their transcripts differ"
        self.found.problems.append(
            Problem(
                item=item.origin,
                message=f"has exactly the samples of {first.origin}{differs}",
                mend="decide which transcript is right" if differs else "",
                severity="refused" if differs else "skipped",
            )
        )

    def _mark_near_duplicates(self) -> None:
        for name, row in self.before.items():
            stored = read_member(self.out_root, row.shard, row.offset, row.length)
            self.prints[name] = fingerprint(load_mono_16k(stored, name=name))
        found = originals(near_duplicates(self.prints), rank=lambda name: name not in self.before)
        for name, original in sorted(found.items()):
            if name in self.before:
                continue  # adding data moves nobody who was there
            # The original may itself be an old repetition: point to the end of the chain.
            original = self.rows[original].duplicate_of or original
            self.rows[name] = replace(self.rows[name], duplicate_of=original)
            self.found.problems.append(self._near_duplicate(name, original))

    def _near_duplicate(self, name: str, original: str) -> Problem:
        known = self.origins.get(original)
        return Problem(
            item=self.origins[name].origin,
            message=f"sounds like the same recording as {known.origin if known else original}",
            severity="noted",
        )

    def _require_shards(self) -> None:
        for shard in sorted({row.shard for row in self.before.values()}):
            if not (self.out_root / shard).is_file():
                raise CorpusError(
                    "its manifest names this shard, and it is missing",
                    item=shard,
                    mend=f"fetch it with dvc pull, or remove {self.folder} and ingest again",
                )
