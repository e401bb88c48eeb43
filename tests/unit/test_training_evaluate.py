"""Evaluation: modes, decoders, slices, tuning on dev only, and the baseline that never listens."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.manifest import Utterance
from features.decode import DecoderConfig
from features.language_model import ArpaModel, train_witten_bell
from features.lexicon import Lexicon
from features.streaming import settled_frames
from features.tokens import TokenTable
from training.baselines import deaf_baseline, likeliest_sentences
from training.engines import Mode, length_batches, pad_batch, stream_blocks
from training.evaluate import (
    Decoding,
    EvalItem,
    EvaluationError,
    acoustic_pass,
    compare,
    evaluate,
    score_items,
    slices_of,
    summarise,
    worst_utterances,
)
from training.tuning import tune_decoder

TABLE = TokenTable.from_alphabet("abcdefghijklmnopqrstuvwxyz' ")
SENTENCES = ["one large tea", "two small teas", "one small coffee", "two large coffees"] * 3
GREEDY = DecoderConfig(kind="greedy")


def utterance(number: int, text: str, **changes: object) -> Utterance:
    fields: dict[str, object] = {
        "utterance_id": f"u{number:03d}", "corpus": "cafe", "shard": "s.tar", "offset": 0,
        "length": 1, "text": text, "normalised_text": text, "normaliser": "en-1",
        "speaker": f"speaker{number % 3}", "language": "en", "split": "dev", "licence": "CC0-1.0",
        "consent": ("eval",), "source": "made", "source_digest": "sha256:0",
        "native_format": "wav", "native_rate_hz": 16000, "native_channels": 1,
        "duration_s": 1.5, "level_dbfs": -20.0, "peak_dbfs": -3.0, "clipping_ratio": 0.0,
        "dc_offset": 0.0, "snr_db": 25.0, "bandwidth_hz": 7600.0, "speech_ratio": 0.6,
    }  # fmt: skip
    return Utterance(**{**fields, **changes})  # type: ignore[arg-type]


def spelling(text: str, *, doubt: float = 0.0) -> NDArray[np.float32]:
    """Log-probabilities that spell ``text``; doubt moves mass from each letter to the next one."""
    tokens = [token for letter in TABLE.encode(text) for token in (letter, 0)]
    probs = np.full((len(tokens), TABLE.size), 1e-4)
    for frame, token in enumerate(tokens):
        letter = token > TABLE.space
        probs[frame, token] += 1.0 - (doubt if letter else 0.0)
        if letter:
            probs[frame, 3 + (token + 1) % 26] += doubt
    probs /= probs.sum(axis=1, keepdims=True)
    return np.log(probs).astype(np.float32)


class Spelling:
    """An engine whose features are the answer: the first value of each frame is a token."""

    name = "spelling"
    modes: tuple[Mode, ...] = ("full", "stream")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def log_probs(
        self, features: Sequence[NDArray[np.float32]], mode: Mode
    ) -> list[NDArray[np.float32]]:
        self.batches.append(len(features))
        loss = 0.0 if mode == "full" else 0.25  # a stream loses the last quarter
        made = []
        for x_TF in features:
            tokens = x_TF[:, 0].astype(int)
            probs = np.full((len(tokens), TABLE.size), 1e-4, dtype=np.float32)
            probs[np.arange(len(tokens)), tokens] = 1.0
            kept = len(tokens) - int(loss * len(tokens))
            made.append(np.log(probs / probs.sum(axis=1, keepdims=True))[:kept])
        return made


def item(number: int, text: str, said: str | None = None, **changes: object) -> EvalItem:
    """An item that the spelling engine hears as ``said``."""
    tokens = [t for letter in TABLE.encode(text if said is None else said) for t in (letter, 0)]
    features = np.zeros((len(tokens), 80), dtype=np.float32)
    features[:, 0] = tokens
    return EvalItem(utterance=utterance(number, text, **changes), features_TF=features)


def test_every_mode_and_decoder_is_scored_and_acoustics_run_once_per_mode() -> None:
    engine = Spelling()
    items = [item(n, text) for n, text in enumerate(SENTENCES)]
    lm = ArpaModel.from_text(train_witten_bell(SENTENCES))
    results = evaluate(
        engine,
        items,
        modes=("full", "stream"),
        decoders={"greedy": GREEDY, "lm": DecoderConfig(alpha=0.3, beta=0.5)},
        decoding=Decoding(table=TABLE, language_model=lm),
        seed=1,
    )
    assert [(r.mode, r.decoder) for r in results] == [
        ("full", "greedy"), ("full", "lm"), ("stream", "greedy"), ("stream", "lm"),
    ]  # fmt: skip
    assert sum(engine.batches) == 2 * len(items)
    assert results[0].wer.point == 0.0
    assert results[2].errors.del_ + results[2].errors.sub > 0
    assert results[2].wer.low <= results[2].wer.point <= results[2].wer.high


def test_figures_hold_numbers_and_no_transcript() -> None:
    items = [item(n, text, said="one large") for n, text in enumerate(SENTENCES)]
    [result] = evaluate(
        Spelling(), items, modes=("full",), decoders={"greedy": GREEDY},
        decoding=Decoding(table=TABLE), seed=1,
    )  # fmt: skip
    figures = result.figures()
    assert "large" not in str(figures) and "coffee" not in str(figures)
    assert figures["words"]["ref"] == 36 == result.words
    assert figures["deletions_share"] == pytest.approx(
        figures["words"]["del_"] / result.errors.errors
    )
    assert result.speakers == 3 and result.utterances == 12


def test_deletions_share_tells_silence_from_confusion() -> None:
    quiet = [item(0, "one large tea", said="one large")]
    wrong = [item(0, "one large tea", said="one large sea")]
    shares = [
        evaluate(
            Spelling(), items, modes=("full",), decoders={"g": GREEDY},
            decoding=Decoding(table=TABLE), seed=1,
        )[0].deletions_share
        for items in (quiet, wrong)
    ]  # fmt: skip
    assert shares == [1.0, 0.0]


def test_a_mode_that_the_engine_lacks_is_refused_by_name() -> None:
    with pytest.raises(EvaluationError, match=r"spelling: has no mode 'masked'.*full, stream"):
        acoustic_pass(Spelling(), [item(0, "a")], "masked")


def test_nothing_to_evaluate_is_an_error_and_not_a_rate() -> None:
    with pytest.raises(EvaluationError, match="no recordings"):
        summarise([], engine="e", mode="full", decoder="greedy", seed=1)


@pytest.mark.parametrize(
    ("snr_db", "duration_s", "expected"),
    [
        (9.99, 1.9, ("under 10 dB", "under 2 s")),
        (10.0, 2.0, ("10 to 20 dB", "2 to 5 s")),
        (29.9, 9.9, ("20 to 30 dB", "5 to 10 s")),
        (30.0, 10.0, ("30 dB and more", "10 s and more")),
    ],
)
def test_bands_own_their_lower_edge(
    snr_db: float, duration_s: float, expected: tuple[str, str]
) -> None:
    slices = slices_of(utterance(0, "a", snr_db=snr_db, duration_s=duration_s, speaker=""))
    assert (slices["SNR"], slices["duration"]) == expected
    assert slices["corpus"] == "cafe" and slices["speaker"] == "unknown"


def test_slices_cover_every_utterance_once_per_dimension() -> None:
    items = [item(n, text, snr_db=5.0 * n) for n, text in enumerate(SENTENCES)]
    scored = score_items(items, [text for text in SENTENCES])
    result = summarise(scored, engine="e", mode="full", decoder="g", seed=1)
    assert set(result.slices) == {"corpus", "SNR", "duration", "speaker"}
    for rows in result.slices.values():
        assert sum(row.utterances for row in rows) == len(items)
        assert sum(row.words for row in rows) == result.words


def test_comparison_counts_net_words_and_deletions() -> None:
    items = [item(n, text) for n, text in enumerate(SENTENCES)]
    before = score_items(items, SENTENCES)
    after = score_items(items, ["one large", "two small seas", *SENTENCES[2:]])
    comparison = compare(before, after, seed=1)
    assert (comparison.net_words_worse, comparison.deletions_worse) == (2, 1)
    assert comparison.wer_difference.point == pytest.approx(2 / 36)
    assert compare(after, before, seed=1).net_words_worse == -2


def test_worst_utterances_never_list_a_perfect_one() -> None:
    items = [item(n, text) for n, text in enumerate(SENTENCES[:3])]
    scored = score_items(items, ["one large tea", "", "one small tea"])
    assert [one.utterance_id for one in worst_utterances(scored, limit=5)] == ["u001", "u002"]
    assert worst_utterances(scored, limit=0) == []


def test_tuning_finds_the_language_model_that_mends_what_was_misheard() -> None:
    lm = ArpaModel.from_text(train_witten_bell(SENTENCES))
    items = [item(n, text) for n, text in enumerate(SENTENCES[:4])]
    log_probs = [spelling(text, doubt=0.51) for text in SENTENCES[:4]]
    decoding = Decoding(table=TABLE, language_model=lm, lexicon=Lexicon.from_sentences(SENTENCES))
    base = DecoderConfig(beam=16)
    tuning = tune_decoder(
        items, log_probs, base, decoding, alphas=(0.0, 0.5, 1.0), betas=(0.0, 1.0)
    )
    without = next(trial for trial in tuning.trials if trial.alpha == 0.0)
    best = min(tuning.trials, key=lambda trial: trial.errors)
    assert len(tuning.trials) == 6
    assert best.errors < without.errors
    assert tuning.config.alpha > 0 and tuning.config.beam == 16
    assert tuning.figures()["alpha"] == tuning.config.alpha


def test_a_tie_goes_to_the_weaker_language_model() -> None:
    lm = ArpaModel.from_text(train_witten_bell(SENTENCES))
    items = [item(0, SENTENCES[0])]
    tuning = tune_decoder(
        items, [spelling(SENTENCES[0])], DecoderConfig(),
        Decoding(table=TABLE, language_model=lm), alphas=(0.6, 0.2), betas=(1.0, 0.0),
    )  # fmt: skip
    assert (tuning.config.alpha, tuning.config.beta) == (0.2, 0.0)


@pytest.mark.parametrize("split", ["test", "train", ""])
def test_tuning_on_anything_but_dev_is_refused(split: str) -> None:
    items = [item(0, "one large tea"), item(1, "two small teas", split=split)]
    with pytest.raises(EvaluationError, match=r"u001.*tuned on dev only"):
        tune_decoder(items, [spelling("a"), spelling("b")], DecoderConfig(), Decoding(table=TABLE))


def test_likeliest_sentences_are_the_models_own_ranking() -> None:
    sentences = ["tea please"] * 5 + ["coffee please"] * 2 + ["tea"]
    model = ArpaModel.from_text(train_witten_bell(sentences))
    found = likeliest_sentences(model, count=3)
    assert found[0] == "tea please"
    scores = [model.sentence_logp(sentence.split()) for sentence in found]
    assert scores == sorted(scores, reverse=True)
    assert "" not in found


def test_the_deaf_baseline_answers_the_same_whatever_was_said() -> None:
    model = ArpaModel.from_text(train_witten_bell(SENTENCES))
    dev = [item(n, "two small teas") for n in range(3)]
    test = [item(n, text) for n, text in enumerate(SENTENCES)]
    result, sentence = deaf_baseline(model, dev, test, seed=1)
    assert sentence == "two small teas"  # dev picked it among the likeliest
    assert {one.hyp for one in result.scored} == {sentence}
    assert 0.5 < result.wer.point < 1.0


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(7, 300), min_size=1, max_size=20),
    max_frames=st.integers(50, 2000),
    max_rows=st.integers(1, 8),
)
def test_batches_hold_every_index_once_within_their_limits(
    lengths: list[int], max_frames: int, max_rows: int
) -> None:
    batches = length_batches(lengths, max_frames=max_frames, max_rows=max_rows)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[index] for index in batch) * len(batch)
        assert len(batch) <= max_rows
        assert padded <= max_frames or len(batch) == 1


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 150), min_size=1, max_size=4), chunk=st.sampled_from([2, 4, 8])
)
def test_stream_blocks_overlap_by_what_is_not_settled_and_lose_nothing(
    lengths: list[int], chunk: int
) -> None:
    features = [np.arange(1, n + 1, dtype=np.float32)[:, None].repeat(2, axis=1) for n in lengths]
    seen: list[list[float]] = [[] for _ in lengths]
    for x_BTF, x_len in stream_blocks(features, chunk):
        assert x_BTF.shape[1] == 4 * chunk + 3
        for row, count in enumerate(x_len):
            values = x_BTF[row, : int(count), 0].tolist()
            assert (x_BTF[row, int(count) :] == 0).all()
            again = 4 * (chunk - settled_frames(chunk)) + 3 if seen[row] else 0
            assert values[:again] == seen[row][len(seen[row]) - again :] or not values
            seen[row] += values[again:]
    for row, length in enumerate(lengths):
        assert seen[row] == (list(range(1, length + 1)) if length > 3 else [])


def test_padding_reaches_the_shortest_input_that_the_graph_takes() -> None:
    x_BTF, x_len = pad_batch([np.ones((2, 80), np.float32), np.ones((5, 80), np.float32)])
    assert x_BTF.shape == (2, 7, 80) and x_len.tolist() == [2, 5]
    assert x_BTF[0, 2:].sum() == 0
