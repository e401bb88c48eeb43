"""The engine: padding and neighbours change nothing; a graph of another front end is refused."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from features.bundle import Bundle, write_bundle
from governance.errors import AuricleError, ConfigError
from serving.engine.batcher import Chunk
from serving.engine.engine import Engine, EngineOptions
from tests.support_bundle import make_bundle

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, EngineOptions(slots=4))


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (frames, 80)).astype(np.float32)


def test_a_row_is_the_same_alone_and_in_a_batch(engine: Engine) -> None:
    pieces = [noise(7, 1), noise(6, 2), noise(311, 3), noise(0), noise(120, 4)]
    together = engine.offline(pieces)
    assert [len(logp) for logp in together] == [1, 0, 77, 0, 29]
    for piece, logp in zip(pieces, together, strict=True):
        (alone,) = engine.offline([piece])
        assert logp.shape == alone.shape
        if len(alone):
            assert np.abs(logp - alone).max() < TOLERANCE
    assert engine.offline([]) == []


def test_chunks_through_the_slab_equal_the_whole_file(engine: Engine) -> None:
    x_TF = noise(64 * 4 + 3, 5)
    (whole,) = engine.offline([x_TF])
    rows = [engine.slab.acquire(), engine.slab.acquire()]
    parts = []
    for start in range(0, len(x_TF) - 34, engine.advance_frames):  # the last one is not full
        piece = x_TF[start : start + 67]
        padded = np.pad(piece, ((0, 67 - len(piece)), (0, 0)))
        mine = Chunk(row=rows[1], x_TF=padded, valid=len(piece))
        other = Chunk(row=rows[0], x_TF=noise(67, 90 + start), valid=67)
        parts.append(engine.step([other, mine])[1])
    for row in rows:
        engine.slab.release(row)
    assert np.abs(np.concatenate(parts) - whole).max() < TOLERANCE


def test_a_partial_chunk_gives_its_real_frames_and_an_empty_one_none(engine: Engine) -> None:
    x_TF = noise(40, 6)
    padded = np.zeros((67, 80), np.float32)
    padded[:40] = x_TF
    row = engine.slab.acquire()
    (nothing,) = engine.step([Chunk(row=row, x_TF=padded, valid=0)])
    (logp,) = engine.step([Chunk(row=row, x_TF=padded, valid=40)])
    engine.slab.release(row)
    assert len(nothing) == 0
    assert np.abs(logp - engine.offline([x_TF])[0]).max() < TOLERANCE


def test_io_binding_gives_the_same_numbers(bundle: Bundle, engine: Engine) -> None:
    bound = Engine(bundle, EngineOptions(slots=1, io_binding=True))
    bound.warm_up()
    x_TF = noise(200, 7)
    assert np.array_equal(bound.offline([x_TF])[0], engine.offline([x_TF])[0])


def test_warm_up_leaves_no_trace(bundle: Bundle) -> None:
    fresh = Engine(bundle, EngineOptions(slots=1))
    fresh.warm_up()
    assert fresh.slab.in_use == 0 and not fresh.slab.attn_LBTD.any()


def test_a_missing_provider_or_chunk_size_is_named(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="320 ms"):
        Engine(bundle, EngineOptions(chunk_ms=320))
    with pytest.raises(ConfigError, match="not cpu or cuda"):
        Engine(bundle, EngineOptions(provider="tpu"))
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ConfigError, match="onnxruntime-gpu"):
            Engine(bundle, EngineOptions(provider="cuda"))


@pytest.mark.parametrize("key", ["feature_fingerprint", "token_digest"])
def test_a_graph_of_another_front_end_is_refused(bundle: Bundle, tmp_path: Path, key: str) -> None:
    sources = {name: tmp_path / name for name in bundle.files}
    for name, path in sources.items():
        shutil.copyfile(bundle.path(name), path)
    model = onnx.load(str(sources["offline.onnx"]))
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = "another"
    onnx.save(model, str(sources["offline.onnx"]))
    write_bundle(tmp_path / "changed", dataclasses.replace(bundle.config), sources)
    with pytest.raises(ConfigError, match=key):
        Engine(Bundle.load(tmp_path / "changed"))


def test_a_graph_that_is_no_model_is_a_clear_error(bundle: Bundle, tmp_path: Path) -> None:
    sources = {name: bundle.path(name) for name in bundle.files}
    (tmp_path / "offline.onnx").write_bytes(b"not a model")
    sources["offline.onnx"] = tmp_path / "offline.onnx"
    write_bundle(tmp_path / "broken", bundle.config, sources)
    with pytest.raises(AuricleError, match=r"offline\.onnx.*Mend"):
        Engine(Bundle.load(tmp_path / "broken"))
