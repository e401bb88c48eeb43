"""Stage ``tokens``: token table, lexicon and n-gram language model of the training text."""

from data.manifest import read_manifest
from data.text import ALPHABET, NORMALISER_VERSION
from features.language_model import ArpaModel, train_witten_bell
from features.tokens import TokenTable
from governance.canonical import write_atomic
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import TokensParams
from pipelines._stage import StageRun, run_stage


def main() -> None:
    """Read the training text, write what decoding needs."""
    run_stage("tokens", _body, inputs={"manifest": paths.SPLIT}, outputs={"tokens": paths.TOKENS})


def _body(run: StageRun) -> None:
    params = load("tokens", TokensParams)
    rows = read_manifest(paths.SPLIT)
    text = {
        split: [row.normalised_text for row in rows if row.split == split]
        for split in ("train", "dev")
    }
    words = sorted({word for line in text["train"] for word in line.split()})
    TokenTable.from_alphabet(ALPHABET).to_file(paths.TOKENS / "tokens.txt")
    write_atomic(paths.TOKENS / "lexicon.txt", "\n".join(words) + "\n")
    write_atomic(
        paths.TOKENS / "lm.arpa", train_witten_bell(sorted(text["train"]), order=params.order)
    )
    model = ArpaModel.load(paths.TOKENS / "lm.arpa")
    unknown = [word for line in text["dev"] for word in line.split() if word not in set(words)]
    run.parameters = {"order": params.order, "normaliser": NORMALISER_VERSION}
    run.figures = {
        "words": len(words),
        "sentences": len(text["train"]),
        "dev_perplexity": round(model.perplexity(text["dev"]), 3),
        "dev_out_of_vocabulary": len(unknown),
    }


if __name__ == "__main__":
    main()
