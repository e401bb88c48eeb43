"""The same weights through sherpa-onnx: its states, its chunks, our log-probabilities."""

import numpy as np
import onnxruntime
import pytest

from features.bundle import Bundle
from features.fbank import log_mel
from features.tokens import BLANK
from serving.engine.batcher import Chunk
from serving.engine.engine import Engine
from tests.support_bundle import babble, make_bundle
from training.exporting.sherpa import SherpaExport, export_for_sherpa


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(make_bundle(tmp_path_factory.mktemp("sherpa") / "bundle"))


@pytest.fixture(scope="module")
def export(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> SherpaExport:
    return export_for_sherpa(bundle, tmp_path_factory.mktemp("sherpa-export"))


def test_its_states_carry_ours_to_the_same_log_probabilities(
    bundle: Bundle, export: SherpaExport
) -> None:
    engine = Engine(bundle)
    session = onnxruntime.InferenceSession(str(export.model))
    mean, std = (
        np.asarray(part, np.float32) for part in (bundle.config.norm.mean, bundle.config.norm.std)
    )
    x_TF = log_mel(babble(3.0), bundle.config.feature_spec)
    states = {
        one.name: np.zeros([1 if isinstance(size, str) else size for size in one.shape],
                           np.int64 if one.name == "processed_lens" else np.float32)
        for one in session.get_inputs()[1:]
    }  # fmt: skip
    names = [one.name for one in session.get_outputs()]
    row, compared = engine.slab.acquire(), 0
    window, hop = engine.chunk_frames, engine.advance_frames
    for at in range(0, len(x_TF) - window + 1, hop):
        part_TF = x_TF[at : at + window]
        logp, *after = session.run(names, {"features": part_TF[None], **states})
        states = {
            name.removeprefix("new_"): value for name, value in zip(names[1:], after, strict=True)
        }
        (expected,) = engine.step([Chunk(row=row, x_TF=(part_TF - mean) / std, valid=window)])
        np.testing.assert_allclose(logp[0], expected, atol=1e-4)
        compared += len(expected)
    assert compared > 40


def test_sherpa_onnx_itself_loads_it_and_hears_what_we_hear(
    bundle: Bundle, export: SherpaExport
) -> None:
    import sherpa_onnx

    recognizer = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
        tokens=str(export.tokens), model=str(export.model), num_threads=1
    )
    audio_T = babble(3.0)
    streams = [recognizer.create_stream() for _ in range(2)]
    for stream in streams:
        stream.accept_waveform(16_000, audio_T * export.sample_scale)
        stream.input_finished()
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.decode_streams(ready)
    first, second = (recognizer.get_result(stream) for stream in streams)
    assert first == second
    assert set(first) & set(_greedy(bundle, audio_T))


def _greedy(bundle: Bundle, audio_T: np.ndarray) -> str:
    mean, std = (
        np.asarray(part, np.float32) for part in (bundle.config.norm.mean, bundle.config.norm.std)
    )
    x_TF = (log_mel(audio_T, bundle.config.feature_spec) - mean) / std
    (logp_TV,) = Engine(bundle).offline([x_TF])
    best = [int(token) for token in logp_TV.argmax(axis=1) if token != BLANK]
    return bundle.token_table().decode(best)
