"""CPU cost of decoding: our beam search beside flashlight-text's C++ lexicon decoder, same input.

    python -m benchmarks.decode [--utterances 100] [--repeats 5] [--out benchmarks/results]

The log-probabilities are synthetic and peaky like a trained CTC model's: sentences of a small
ordering grammar, 13 letters per second at 25 frames/s, each letter one or two frames wide with
confusions, near-certain blanks between, silence at both ends. CPU seconds of one thread.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import Page, median_interval, parser, table
from data.scoring import count_words
from data.text import ALPHABET
from features.decode import DecoderConfig, decode
from features.language_model import ArpaModel, train_witten_bell
from features.lexicon import Lexicon
from features.tokens import BLANK, TokenTable

FRAME_S = 0.04
_POLITE = ("can i have", "i would like", "could you make me", "please give me", "i'll take")
_COUNT = ("a", "one", "two", "three", "four", "a large", "a small", "one medium")
_DRINK = ("coffee", "cappuccino", "latte", "espresso", "flat white", "hot chocolate", "green tea")
_EXTRA = ("", "with oat milk", "with two sugars", "without sugar", "to go", "with an extra shot")
_END = ("", "please", "thank you", "thanks")
Logp = NDArray[np.float64]
Decoder = Callable[[Logp], str]


def sentence(rng: np.random.Generator) -> str:
    def draw(options: tuple[str, ...]) -> str:
        return options[rng.integers(len(options))]

    parts = [draw(_POLITE), draw(_COUNT), draw(_DRINK), draw(_EXTRA)]
    if rng.random() < 0.4:
        parts += ["and", draw(_COUNT), draw(_DRINK)]
    return " ".join(part for part in [*parts, draw(_END)] if part)


def synthetic_logp(text: str, table: TokenTable, rng: np.random.Generator) -> Logp:
    """Frames as a peaky CTC model gives them."""
    rows = [_blank_row(table, rng) for _ in range(rng.integers(10, 25))]
    previous = BLANK
    for token in table.encode(text):
        if token == previous or rng.random() < 0.6:
            rows.append(_blank_row(table, rng))
        rows += [_letter_row(table, token, rng) for _ in range(1 + (rng.random() < 0.2))]
        previous = token
    rows += [_blank_row(table, rng) for _ in range(rng.integers(10, 25))]
    logits_TV = np.stack(rows)
    return logits_TV - np.log(np.exp(logits_TV).sum(axis=1, keepdims=True))


def _blank_row(table: TokenTable, rng: np.random.Generator) -> Logp:
    row = rng.normal(-5.0, 1.5, size=table.size)
    row[BLANK] = 9.0 if rng.random() < 0.9 else 2.0
    return row


def _letter_row(table: TokenTable, token: int, rng: np.random.Generator) -> Logp:
    row = rng.normal(-3.0, 1.5, size=table.size)
    row[token] = rng.normal(5.0, 1.5)
    row[rng.integers(1, table.size)] += rng.uniform(0.0, 6.0)  # what it is confused with
    row[BLANK] = rng.normal(0.5, 1.5)
    return row


def flashlight(arpa: Path, table: TokenTable, lexicon: Lexicon, config: DecoderConfig) -> Decoder:
    """The peer at our weights, with its unigram smearing."""
    from flashlight.lib.text.decoder import (
        CriterionType,
        LexiconDecoder,
        LexiconDecoderOptions,
        SmearingMode,
        Trie,
    )
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    words = Dictionary([*lexicon.words, "<unk>"])
    lm = KenLM(str(arpa), words)
    trie = Trie(table.size, table.space)
    start = lm.start(False)
    for index, word in enumerate(lexicon.words):
        trie.insert(_spelling(word, table), index, lm.score(start, index)[1])
    trie.smear(SmearingMode.MAX)
    options = LexiconDecoderOptions(
        beam_size=config.beam, beam_size_token=12, beam_threshold=25,
        lm_weight=config.alpha * math.log(10.0),  # its KenLM answers in base 10
        word_score=config.beta, unk_score=-float("inf"), sil_score=0.0, log_add=True,
        criterion_type=CriterionType.CTC,
    )  # fmt: skip
    decoder = LexiconDecoder(
        options, trie, lm, table.space, BLANK, words.get_index("<unk>"), [], False
    )

    def run(logp_TV: Logp) -> str:
        emissions = np.ascontiguousarray(logp_TV, dtype=np.float32)
        best = decoder.decode(emissions.ctypes.data, *emissions.shape)[0]
        return " ".join(words.get_entry(word) for word in best.words if word >= 0)

    return run


def _spelling(word: str, table: TokenTable) -> list[int]:
    """The peer wants the separator at a word's end."""
    return [*table.encode(word), table.space]


def measure(name: str, run: Decoder, corpus: list[tuple[str, Logp]], repeats: int) -> list[str]:
    """A row of the table."""
    seconds = sum(len(logp) for _, logp in corpus) * FRAME_S
    costs = []
    for _ in range(repeats):
        began = time.process_time()
        answers = [run(logp) for _, logp in corpus]
        costs.append((time.process_time() - began) / seconds)
    counts = [count_words(text, answer) for (text, _), answer in zip(corpus, answers, strict=True)]
    wer = 100 * sum(c.errors for c in counts) / sum(c.ref for c in counts)
    cost = median_interval(costs)
    return [
        name, f"{cost.point:.5f}", f"{cost.low:.5f} to {cost.high:.5f}",
        f"{1 / cost.point:,.0f}", f"{wer:.2f}",
    ]  # fmt: skip


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--utterances", type=int, default=100)
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args(argv)
    rng = np.random.default_rng(7)
    table_of_tokens = TokenTable.from_alphabet(ALPHABET)
    training = [sentence(rng) for _ in range(2000)]
    arpa = train_witten_bell(training)
    lm, lexicon = ArpaModel.from_text(arpa), Lexicon.from_sentences(training)
    texts = [sentence(rng) for _ in range(given.utterances)]
    corpus = [(text, synthetic_logp(text, table_of_tokens, rng)) for text in texts]
    rows = []
    for config in (
        DecoderConfig(kind="greedy"),
        DecoderConfig(beam=8),
        *(DecoderConfig(beam=k, alpha=0.8, beta=1.0, lexicon=True) for k in (4, 8, 16, 32)),
    ):
        name = "greedy" if config.kind == "greedy" else f"beam {config.beam}"
        name += ", lexicon + trigram" if config.lexicon else ""
        rows.append(
            measure(name, _ours(config, table_of_tokens, lm, lexicon), corpus, given.repeats)
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lm.arpa"
        path.write_text(arpa, encoding="utf-8")
        for beam in (8, 60):
            config = DecoderConfig(beam=beam, alpha=0.8, beta=1.0, lexicon=True)
            peer = flashlight(path, table_of_tokens, lexicon, config)
            name = f"flashlight-text (C++), beam {beam}, lexicon + trigram"
            rows.append(measure(name, peer, corpus, given.repeats))
    return _page(rows, corpus, given.repeats, argv).write(given.out)


def _ours(config: DecoderConfig, table: TokenTable, lm: ArpaModel, lexicon: Lexicon) -> Decoder:
    return lambda logp_TV: decode(logp_TV, config, table, lm, lexicon).text


def _page(
    rows: list[list[str]], corpus: list[tuple[str, Logp]], repeats: int, argv: Sequence[str]
) -> Page:
    seconds = sum(len(logp) for _, logp in corpus) * FRAME_S
    blanks = np.concatenate([np.exp(logp[:, BLANK]) for _, logp in corpus])
    header = ("decoder", "CPU-s per audio-s", "95 % interval", "x real time", "WER %")
    return Page(
        name="decode",
        title="Decoding cost",
        arguments=argv,
        notes=[
            f"{len(corpus)} synthetic utterances, {seconds:.0f} s, "
            f"{100 * (blanks <= 0.999).mean():.0f} % of frames busy; {repeats} runs, one thread"
        ],
        sections=[("Ours beside the peer, same log-probabilities", table(header, rows))],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
