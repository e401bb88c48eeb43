"""Stage ``ingest``: the named corpora as one manifest, with same-sounding recordings named."""

from dataclasses import replace

from data.duplicates import find_duplicates
from data.manifest import Utterance, read_manifest, write_manifest
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
    rows = [row for name in params.corpora for row in _corpus(name)]
    unique = {row.utterance_id: row for row in reversed(rows)}
    rows = sorted(unique.values(), key=lambda row: (row.corpus, row.utterance_id))
    pairs = find_duplicates(rows, paths.SHARDS)
    marked = [replace(row, duplicate_of=pairs.get(row.utterance_id, "")) for row in rows]
    kept = [row for row in marked if not (params.drop_duplicates and row.duplicate_of)]
    write_manifest(paths.ALL, kept)
    run.figures = {
        "utterances": len(kept),
        "hours": round(sum(row.duration_s for row in kept) / 3600, 4),
        "duplicates": len(pairs),
        "by_corpus": {name: sum(row.corpus == name for row in kept) for name in params.corpora},
    }


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


if __name__ == "__main__":
    main()
