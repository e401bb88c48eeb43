"""The recordings of one split."""

from data.manifest import Utterance, read_manifest
from pipelines import _paths as paths


def load_split(split: str) -> list[Utterance]:
    """The utterances of one split, in the order of their ids."""
    rows = [row for row in read_manifest(paths.SPLIT) if row.split == split]
    return sorted(rows, key=lambda row: row.utterance_id)
