"""Stage ``ingest``: the named corpora as one manifest, with repeated recordings named."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from data.audio import load_mono_16k
from data.duplicates import DuplicatePair, fingerprint, near_duplicates
from data.manifest import Utterance, read_manifest, write_manifest
from data.merge import Repetition, mark, merge
from data.shards import read_member, verify_shard
from governance.canonical import canonical_json, write_atomic
from governance.errors import AuricleError
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import IngestParams
from pipelines._stage import StageRun, run_stage

_RECORDED, _SHOWN = 20, 5


def main() -> None:
    """Merge manifests."""
    run_stage(
        "ingest",
        _body,
        inputs={"shards": paths.SHARDS},
        outputs={"manifest": paths.ALL, "repetitions": paths.REPETITIONS},
    )


def _body(run: StageRun) -> None:
    params = load("ingest", IngestParams)
    run.parameters = {"corpora": list(params.corpora), "drop_duplicates": params.drop_duplicates}
    read = [row for name in params.corpora for row in _corpus(name)]
    # Before anything is read from them: a changed shard would give other recordings.
    shards = {
        shard: verify_shard(paths.SHARDS / shard) for shard in sorted({r.shard for r in read})
    }
    unique, exact = merge(read)
    across = _repeated_across(unique) if len(params.corpora) > 1 else []
    marked, near = mark(unique, across)
    kept = [row for row in marked if not (params.drop_duplicates and row.duplicate_of)]
    write_manifest(paths.ALL, kept)
    repetitions = [*exact, *near]
    write_atomic(paths.REPETITIONS, canonical_json([asdict(one) for one in repetitions]) + "\n")
    _name(repetitions, dropped=params.drop_duplicates)
    run.figures = {
        "utterances": len(kept),
        "hours": round(sum(row.duration_s for row in kept) / 3600, 4),
        "duplicates": sum(bool(row.duplicate_of) for row in marked) + len(read) - len(unique),
        "repetitions": _summary(repetitions),
        "shards": {shard: shards[shard] for shard in sorted({row.shard for row in kept})},
        "licences": dict(Counter(row.licence for row in kept)),
        "consent": dict(Counter(", ".join(row.consent) for row in kept)),
        "by_corpus": {name: sum(row.corpus == name for row in kept) for name in params.corpora},
    }


def _summary(repetitions: Sequence[Repetition]) -> dict[str, Any]:
    """Counts, and the first ones; ``paths.REPETITIONS`` has them all."""
    ordered = sorted(repetitions, key=lambda one: not one.conflicting)
    return {
        **{kind: sum(one.kind == kind for one in repetitions) for kind in ("exact", "near")},
        "split_conflicts": sum(one.conflicting for one in repetitions),
        "first": [asdict(one) for one in ordered[:_RECORDED]],
    }


def _name(repetitions: Sequence[Repetition], *, dropped: bool) -> None:
    conflicts = [one for one in repetitions if one.conflicting]
    if conflicts:
        print(
            f"  warning: {len(conflicts)} recordings are in different splits; the held-out copy is "
            "kept. The same voice may be on both sides: check the speakers of these corpora"
        )
    what = "named once" if dropped else "marked"
    others = [one for one in repetitions if not one.conflicting]
    for label, ones in (("in different splits", conflicts), (f"repeated, {what}", others)):
        for one in ones[:_SHOWN]:
            print(f"  {label}: {one}")
        if len(ones) > _SHOWN:
            print(f"  {label}: ... and {len(ones) - _SHOWN} more, all in {paths.REPETITIONS}")


def _corpus(name: str) -> list[Utterance]:
    manifest = paths.SHARDS / name / "manifest.parquet"
    if not manifest.exists():
        have = sorted(path.parent.name for path in paths.SHARDS.glob("*/manifest.parquet"))
        raise AuricleError(
            f"no such corpus '{name}' (there are: {', '.join(have) or 'none'})",
            item="params.yaml: ingest.corpora",
            mend="`auricle corpus add PATH --name NAME`, or `dvc pull`",
        )
    return read_manifest(manifest)


def _repeated_across(rows: list[Utterance]) -> list[DuplicatePair]:
    """Recordings of one corpus that another holds in other clothes (gain, codec, rate).

    Within a corpus ``corpus add`` has looked already.
    """
    prints = {}
    for row in rows:
        audio = read_member(paths.SHARDS, row.shard, row.offset, row.length)
        prints[row.utterance_id] = fingerprint(load_mono_16k(audio, name=row.utterance_id))
    corpus = {row.utterance_id: row.corpus for row in rows}
    return [pair for pair in near_duplicates(prints) if corpus[pair.first] != corpus[pair.second]]


if __name__ == "__main__":
    main()
