"""What several stages evaluate with: normalised features of a split, and the decoding materials."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.manifest import Utterance
from features.archive import FeatureArchive
from features.language_model import ArpaModel
from features.lexicon import Lexicon
from features.norm import normalise
from features.tokens import TokenTable
from training.evaluate import Decoding, EvalItem


def items_of(archive: FeatureArchive, rows: Sequence[Utterance]) -> list[EvalItem]:
    """Recordings as a cold service sees them: normalised from the global prior, frame by frame."""
    stats = archive.norm
    return [
        EvalItem(
            utterance=row,
            features_TF=normalise(
                archive.get(row.utterance_id).astype(np.float32), stats.mean_F, stats.std_F
            ),
        )
        for row in rows
    ]


def load_decoding(folder: Path) -> Decoding:
    """Token table, language model and lexicon of a ``tokens`` stage or of a bundle."""
    return Decoding(
        table=TokenTable.from_file(folder / "tokens.txt"),
        language_model=ArpaModel.load(folder / "lm.arpa"),
        lexicon=Lexicon.from_file(folder / "lexicon.txt"),
    )
