"""Export: graphs equal PyTorch at lengths and batches they were not traced at; fp16 too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from features.bundle import Bundle
from features.bundle_config import TOKENS_FILE
from features.streaming import settled_frames
from governance.errors import AuricleError
from tests.support_export import (
    CHUNK_FRAMES,
    CONVOLUTIONS,
    REQUEST,
    TABLE,
    exported,
    layer_names,
    recordings,
    tiny_model,
    tiny_norm,
)
from training.export import export_bundle, export_half
from training.exporting import graph as graph_module
from training.exporting.parity import ParityError, check_offline, check_stream
from training.onnx_engine import OnnxEngine, metadata, open_session, stream_step, zero_state
from training.torch_engine import TorchEngine


def bundle() -> Bundle:
    return Bundle.load(exported()[0])


def test_both_graphs_equal_pytorch_and_rows_do_not_touch() -> None:
    for parity in exported()[1].parities:
        assert parity.max_error < 1e-4
        assert parity.tokens_differing == 0
        assert parity.neighbour_effect < 1e-4
        assert parity.cases >= 9


def test_inputs_outputs_and_axes_are_the_contracts() -> None:
    found = bundle()
    offline = onnx.load(found.path("offline.onnx")).graph
    stream = onnx.load(found.path("stream-640.onnx")).graph

    def shapes(items: object) -> dict[str, list[object]]:
        return {
            item.name: [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
            for item in items  # type: ignore[attr-defined]
        }

    assert shapes(offline.input) == {"x": ["batch", "frames", 80], "x_len": ["batch"]}
    assert shapes(offline.output) == {
        "log_probs": ["batch", "out_frames", TABLE.size],
        "out_len": ["batch"],
    }
    shape = tiny_model().config
    caches = {
        "attn_cache": [shape.layers, "batch", shape.left_frames, 2 * shape.d_model],
        "conv_cache": [shape.layers, "batch", shape.d_model, shape.kernel - 1],
        "processed_len": ["batch"],
    }
    assert shapes(stream.input) == {"x": ["batch", 67, 80], "x_len": ["batch"], **caches}
    assert shapes(stream.output) == {
        "log_probs": ["batch", CHUNK_FRAMES, TABLE.size],
        "out_len": ["batch"],
        **{f"new_{name}": shape for name, shape in caches.items()},
    }


def test_graphs_carry_the_fingerprint_and_the_token_digest() -> None:
    found = bundle()
    for name in ("offline.onnx", "stream-640.onnx"):
        assert metadata(open_session(found.path(name))) == {
            "feature_fingerprint": found.config.feature_fingerprint,
            "token_digest": TABLE.digest,
        }


def test_layers_have_their_modules_names_and_no_path_of_this_machine_is_inside() -> None:
    found = bundle()
    for file in ("offline.onnx", "stream-640.onnx"):
        graph = onnx.load(found.path(file)).graph
        constants = {item.name for item in graph.initializer}
        weighted = [
            node.name
            for node in graph.node
            if node.op_type in graph_module.WEIGHTED and node.input[1] in constants
        ]
        assert sorted(weighted) == sorted(layer_names(torch.nn.Linear, *CONVOLUTIONS))
        content = found.path(file).read_bytes()
        assert str(Path(torch.__file__).parent).encode() not in content
        assert b".py" not in content


def test_onnx_and_torch_engines_agree_and_masked_is_stream() -> None:
    onnx_engine = OnnxEngine(bundle())
    torch_engine = TorchEngine(tiny_model(), chunk_frames=CHUNK_FRAMES)
    features = [*recordings(5, seed=8), np.ones((4, 80), np.float32)]
    for mode in ("full", "stream"):
        ours = onnx_engine.log_probs(features, mode)  # type: ignore[arg-type]
        theirs = torch_engine.log_probs(features, mode)  # type: ignore[arg-type]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    masked, streamed = (torch_engine.log_probs(features, m) for m in ("masked", "stream"))
    for one, other in zip(masked, streamed, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert streamed[-1].shape == (0, TABLE.size)


def test_a_row_without_frames_keeps_its_caches() -> None:
    session = open_session(bundle().path("stream-640.onnx"))
    rng = np.random.default_rng(2)
    attn, conv, processed = zero_state(session, 2)
    state = (
        rng.standard_normal(attn.shape).astype(np.float32),
        rng.standard_normal(conv.shape).astype(np.float32),
        processed + 40,
    )
    x_BTF = rng.standard_normal((2, 67, 80)).astype(np.float32)
    _, out_len, new = stream_step(session, x_BTF, np.array([67, 0], dtype=np.int64), state)
    settled = settled_frames(CHUNK_FRAMES)
    assert out_len.tolist() == [settled, 0]
    np.testing.assert_array_equal(new[0][:, 1], state[0][:, 1])
    np.testing.assert_array_equal(new[1][:, 1], state[1][:, 1])
    assert new[2].tolist() == [40 + settled, 40]
    assert (new[0][:, 0] != state[0][:, 0]).any()


def test_a_mode_without_a_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="no mode 'masked'"):
        OnnxEngine(bundle()).log_probs(recordings(1, seed=1), "masked")
    with pytest.raises(AuricleError, match=r"no stream graph for 480 ms.*\[640\]"):
        OnnxEngine(bundle(), chunk_ms=480)


def test_a_graph_of_other_weights_is_not_called_equal() -> None:
    other = tiny_model()
    with torch.no_grad():
        other.head.bias[3] += 0.05
    offline = check_offline(other, bundle().path("offline.onnx"), seed=1, batches=((40, 90),))
    stream = check_stream(
        other, bundle().path("stream-640.onnx"), chunk_frames=CHUNK_FRAMES, seed=1,
        batches=((40, 90),),
    )  # fmt: skip
    for parity in (offline, stream):
        assert parity.max_error > 1e-3
        with pytest.raises(ParityError, match=parity.graph):
            parity.require()


def test_a_chunk_that_does_not_divide_the_left_context_is_refused_before_any_work() -> None:
    for ms in (600, 650, 0):
        with pytest.raises(AuricleError, match=r"params\.yaml: export\.chunk_ms.*640"):
            export_bundle(
                tiny_model(), Path("never"), replace(REQUEST, chunks_ms=(ms,)),
                table=TABLE, norm=tiny_norm(), seed=1,
            )  # fmt: skip
    assert not Path("never").exists()


def test_a_checkpoint_brings_its_own_tokens_and_statistics() -> None:
    folder, report = exported()
    found = Bundle.load(folder, expected_spec=REQUEST.spec)
    assert found.bundle_digest == report.bundle_digest
    assert found.token_table() == TABLE and found.has(TOKENS_FILE)
    assert found.config.norm.mean == (0.25,) * 80
    assert found.config.chunks[640].chunk_frames == CHUNK_FRAMES
    sizes = report.figures()["graph_bytes"]
    assert sizes["offline.onnx"] == found.path("offline.onnx").stat().st_size


def half_share(path: Path) -> float:
    """Share of weight bytes that are float16: near 1 when the conversion took."""
    sizes = {onnx.TensorProto.FLOAT16: 0, onnx.TensorProto.FLOAT: 0}
    for item in onnx.load(path).graph.initializer:
        if item.data_type in sizes:
            sizes[item.data_type] += len(item.raw_data)
    whole = sum(sizes.values())
    return sizes[onnx.TensorProto.FLOAT16] / whole if whole else 0.0


def test_half_precision_keeps_the_contract_and_stays_close(tmp_path: Path) -> None:
    source = exported()[0]
    export_half(source, tmp_path / "fp16")
    half = Bundle.load(tmp_path / "fp16")
    assert half.config.variant == "fp16"
    for name in ("offline.onnx", "stream-640.onnx"):
        path, before = half.path(name), bundle().path(name)
        assert half_share(path) > 0.95 and half_share(before) == 0.0
        assert path.stat().st_size < 0.7 * before.stat().st_size
        session = open_session(path)
        assert {item.type for item in session.get_inputs()} == {"tensor(float)", "tensor(int64)"}
        assert metadata(session) == metadata(open_session(before))
    features = recordings(4, seed=9)
    for mode in OnnxEngine(half).modes:
        ours = OnnxEngine(half).log_probs(features, mode)
        theirs = OnnxEngine(bundle()).log_probs(features, mode)
        for one, other in zip(ours, theirs, strict=True):
            assert np.abs(one - other).max() < 0.1
            assert np.isfinite(one).all()
