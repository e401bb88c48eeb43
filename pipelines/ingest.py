"""Stage ``ingest``: the named corpora as one manifest, with same-sounding recordings named."""

from collections import Counter
from dataclasses import replace

from data.audio import load_mono_16k
from data.duplicates import fingerprint, near_duplicates, originals
from data.manifest import Utterance, read_manifest, write_manifest
from data.shards import read_member
from governance.canonical import file_digest
from governance.errors import AuricleError
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import IngestParams
from pipelines._stage import StageRun, run_stage


def main() -> None:
    """Merge manifests."""
    run_stage("ingest", _body, inputs={"shards": paths.SHARDS}, outputs={"manifest": paths.ALL})


def _body(run: StageRun) -> None:
    params = load("ingest", IngestParams)
    run.parameters = {"corpora": list(params.corpora), "drop_duplicates": params.drop_duplicates}
    rows_before = [row for name in params.corpora for row in _corpus(name)]
    unique = {row.utterance_id: row for row in reversed(rows_before)}
    rows = sorted(unique.values(), key=lambda row: (row.corpus, row.utterance_id))
    across = _repeated_across(rows) if len(params.corpora) > 1 else {}
    marked = [
        replace(row, duplicate_of=across.get(row.utterance_id, row.duplicate_of)) for row in rows
    ]
    kept = [row for row in marked if not (params.drop_duplicates and row.duplicate_of)]
    write_manifest(paths.ALL, kept)
    run.figures = {
        "utterances": len(kept),
        "hours": round(sum(row.duration_s for row in kept) / 3600, 4),
        "duplicates": sum(bool(row.duplicate_of) for row in marked)
        + len(rows_before)
        - len(unique),
        "shards": {
            row.shard: file_digest(paths.SHARDS / row.shard) for row in _first_of_shard(kept)
        },
        "licences": dict(Counter(row.licence for row in kept)),
        "consent": dict(Counter(", ".join(row.consent) for row in kept)),
        "by_corpus": {name: sum(row.corpus == name for row in kept) for name in params.corpora},
    }


def _first_of_shard(rows: list[Utterance]) -> list[Utterance]:
    return list({row.shard: row for row in rows}.values())


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


def _repeated_across(rows: list[Utterance]) -> dict[str, str]:
    """Recordings of one corpus that another holds in other clothes (gain, codec, rate).

    Within a corpus ``corpus add`` has looked already.
    """
    prints = {}
    for row in rows:
        audio = read_member(paths.SHARDS, row.shard, row.offset, row.length)
        prints[row.utterance_id] = fingerprint(load_mono_16k(audio, name=row.utterance_id))
    corpus = {row.utterance_id: row.corpus for row in rows}
    pairs = [pair for pair in near_duplicates(prints) if corpus[pair.first] != corpus[pair.second]]
    return originals(pairs)


if __name__ == "__main__":
    main()
