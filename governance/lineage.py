"""From an alias back to the shards: which run made what from what, linked by digests alone.

Records say which digests a stage read and made. A link is real when some stage made the very digest
that another one read; a digest that nobody made is said plainly and never papered over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from governance.canonical import canonical_json
from governance.records import StageRecord, plain, record_digest

SOURCES = frozenset({"code", "shards", "policy", "policy.yaml", "params", "champion"})
"""Inputs that come from outside this run of the pipeline: recordings, the code's digest, the policy,
and the standing version that an earlier run made and this one is compared with."""

_TOLD: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "ingest": (("shards", ("shards",)),),
    "validate": (("Great Expectations passed", ("success",)),),
    "featurize": (
        ("feature fingerprint", ("feature_fingerprint", "fingerprint")),
        ("index", ("index_digest",)),
    ),
    "publish": (("Feast feature service", ("feature_service", "training_service")),),
    "train": (("steps", ("steps",)),),
    "export": (("feature fingerprint", ("feature_fingerprint", "fingerprint")),),
    "gate": (("gates passed", ("verdicts.{variant}.passed", "passed")),),
}
"""What an auditor asks of a stage: a label, and the figures or parameters that may answer."""


@dataclass(frozen=True, kw_only=True)
class VersionFacts:
    """What the ledger and the registry know about a version."""

    model: str
    version: int
    run_id: str
    bundle_digest: str  # as some stage's record states it among its outputs
    alias: str = ""  # empty: the version is asked for by number
    variant: str = ""
    bento: str = ""
    promoted_at: str = ""
    promoted_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One line of the tree, with what it was made from below it."""

    title: str
    digest: str = ""
    notes: tuple[str, ...] = ()
    children: tuple["Node", ...] = ()
    broken: bool = False


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The whole chain of one version."""

    root: Node
    stages: tuple[str, ...]  # that the version descends from
    commits: tuple[str, ...]  # git commits that made it
    broken: tuple[str, ...]  # links that do not hold

    @property
    def intact(self) -> bool:
        """Whether every digest that was read was made by a recorded stage."""
        return not self.broken


def build_chain(records: Mapping[str, StageRecord], version: VersionFacts) -> Lineage:
    """Follow the digests of ``records`` from the version's bundle backwards.

    ``records`` maps stage to record in the order in which the pipeline runs them: where several
    stages made equal bytes, the last one before the reader handed them on.
    """
    builder = _Builder(records, version.variant)
    bundle = builder.link(version.bundle_digest, name="bundle", reader="")
    judges = builder.judges()
    run = Node(title=f"MLflow run {version.run_id or 'not recorded'}", children=(bundle, *judges))
    notes = [f"bento {version.bento}"] if version.bento else []
    label = f"version {version.version}" + (f" ({version.variant})" if version.variant else "")
    root = Node(title=f"{version.model} {label}", notes=tuple(notes), children=(run,))
    if version.alias:
        promoted = " ".join(
            part
            for part in (
                f"promoted at {version.promoted_at}" if version.promoted_at else "",
                f"by {version.promoted_by}" if version.promoted_by else "",
            )
            if part
        )
        root = Node(
            title=f"{version.model}@{version.alias}",
            notes=(promoted,) if promoted else (),
            children=(root,),
        )
    return Lineage(
        root=root,
        stages=tuple(builder.visited),
        commits=tuple(sorted({_commit(records[stage]) for stage in builder.visited})),
        broken=tuple(dict.fromkeys(builder.broken)),
    )


def render_text(lineage: Lineage) -> str:
    """An indented tree, the commits, and one line about what does not hold."""
    lines = [_line(lineage.root)]
    _draw(lineage.root.children, "", lines)
    lines.append("git " + (", ".join(lineage.commits) or "commit not recorded"))
    lines.extend(f"BROKEN: {reason}" for reason in lineage.broken)
    if lineage.intact:
        lines.append(f"every link holds: {len(lineage.stages)} stages")
    return "\n".join(lines) + "\n"


def to_json(lineage: Lineage) -> str:
    """The same as canonical JSON."""
    return canonical_json(plain(lineage) | {"intact": lineage.intact})


@dataclass
class _Builder:
    records: Mapping[str, StageRecord]
    variant: str
    visited: dict[str, None] = field(default_factory=dict)  # an ordered set
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._order = {stage: place for place, stage in enumerate(self.records)}
        self._makers: dict[str, list[str]] = {}  # digest -> stages, in the pipeline's order
        for stage, record in self.records.items():
            # a stage's record is an input of later stages too
            for digest in (*record.outputs.values(), record_digest(record)):
                self._makers.setdefault(digest, []).append(stage)

    def link(self, digest: str, *, name: str, reader: str) -> Node:
        """The input ``name`` of stage ``reader``, with the stage that made it below it.

        No reader is the registered version: every stage came before it.
        """
        maker = self._maker(digest, reader)
        if maker is not None:
            return Node(title=name, digest=digest, children=(self._stage(maker),))
        if name in SOURCES:
            return Node(title=name, digest=digest, notes=("from outside the pipeline",))
        who = f"stage {reader}" if reader else "the registered version"
        self.broken.append(f"{who} read '{name}' {digest}, which {self._who_else(name)}")
        return Node(title=name, digest=digest, notes=("nobody made this",), broken=True)

    def judges(self) -> tuple[Node, ...]:
        """Stages that read what the version descends from, without being part of it."""
        nodes = []
        for stage, record in self.records.items():
            if stage in self.visited:
                continue
            makers = [(n, self._maker(d, stage)) for n, d in record.inputs.items()]
            if not any(maker in self.visited for _, maker in makers):
                continue
            for name, maker in makers:
                if maker is None and name not in SOURCES:
                    digest = record.inputs[name]
                    self.broken.append(
                        f"{stage} read '{name}' {digest}, which {self._who_else(name)}"
                    )
            notes = _notes(record, self.variant)
            for name, label in (("policy", "policy"), ("champion", "compared with the champion")):
                if name in record.inputs:
                    notes += (f"{label} {record.inputs[name]}",)
            nodes.append(Node(title=f"judged by {stage}", notes=notes))
        return tuple(nodes)

    def _stage(self, stage: str) -> Node:
        record = self.records[stage]
        if stage in self.visited:
            return Node(title=f"stage {stage}", notes=("told above",))
        self.visited[stage] = None
        children = [
            self.link(digest, name=name, reader=stage)
            for name, digest in record.inputs.items()
            if name != "code"
        ]
        children.extend(_shards(record))
        return Node(
            title=f"stage {stage}", notes=_notes(record, self.variant), children=tuple(children)
        )

    def _maker(self, digest: str, reader: str) -> str | None:
        """The last stage before ``reader`` that made ``digest``: among equal bytes, the nearest."""
        before = self._order.get(reader, len(self._order))
        found = [stage for stage in self._makers.get(digest, []) if self._order[stage] < before]
        return found[-1] if found else None

    def _who_else(self, name: str) -> str:
        for stage, record in self.records.items():
            if name == stage or name in record.outputs:
                now = record.outputs.get(name) or record_digest(record)
                return f"no recorded stage made (stage {stage} now has {now}: it ran again since)"
        return "no recorded stage made"


def _notes(record: StageRecord, variant: str) -> tuple[str, ...]:
    notes = [f"at {record.started_at}", _commit(record)]
    for label, names in _TOLD.get(record.stage, ()):
        value = _told(record, tuple(name.format(variant=variant) for name in names))
        if not isinstance(value, Mapping):
            notes.append(f"{label}: {'not recorded' if value is None else value}")
    return tuple(notes)


def _shards(record: StageRecord) -> list[Node]:
    """One node per shard where the stage recorded a mapping of shard names to digests."""
    shards = _told(record, ("shards",))
    if not isinstance(shards, Mapping):
        return []
    return [Node(title=f"shard {name}", digest=str(digest)) for name, digest in shards.items()]


def _told(record: StageRecord, names: tuple[str, ...]) -> Any:
    """The first of the dotted ``names`` that the record's figures or parameters hold."""
    for source in (record.figures, record.params):
        for name in names:
            value: Any = source
            for part in name.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                return value
    return None


def _commit(record: StageRecord) -> str:
    commit = record.environment.get("git_commit", "unknown")
    dirty = record.environment.get("git_dirty") == "true"
    return f"commit {commit}" + (" with local changes" if dirty else "")


def _line(node: Node) -> str:
    notes = f"  [{'; '.join(node.notes)}]" if node.notes else ""
    return f"{'BROKEN ' if node.broken else ''}{node.title} {node.digest}".rstrip() + notes


def _draw(nodes: tuple[Node, ...], indent: str, lines: list[str]) -> None:
    for node in nodes:
        last = node is nodes[-1]
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{_line(node)}")
        _draw(node.children, indent + ("   " if last else "│  "), lines)
