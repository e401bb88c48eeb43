"""Static int8: close to fp32, blind to batch neighbours, smaller; the harmful layers go back."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from features.bundle import Bundle
from governance.errors import AuricleError
from tests.support_export import CONVOLUTIONS, exported, layer_names, recordings
from training.onnx_engine import OnnxEngine, metadata, open_session, run_offline
from training.quantize import QuantizeReport, quantize_bundle
from training.quantize_config import QuantizeConfig
from training.quantizing.calibration import offline_feeds, stream_feeds
from training.quantizing.compact import compact
from training.quantizing.graph import candidates, has_vnni, layers, prepare
from training.quantizing.ranges import Bound, clip_ranges, fit_bounds
from training.quantizing.sensitivity import kl_divergence

CONFIG = QuantizeConfig(calibration_streams=10, probe_recordings=3, chunks_per_stream=3)


@cache
def quantized() -> tuple[Path, QuantizeReport]:
    fp32 = exported()[0]
    target = fp32.parent / "int8"
    return target, quantize_bundle(fp32, target, recordings(10, seed=4), CONFIG)


def outputs(folder: Path, features: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    session = open_session(folder / "offline.onnx")
    return [run_offline(session, [x_TF])[0] for x_TF in features]


def test_the_int8_bundle_is_whole_and_says_what_it_is() -> None:
    folder, report = quantized()
    bundle = Bundle.load(folder)
    assert bundle.config.variant == "int8"
    assert bundle.bundle_digest == report.bundle_digest
    assert set(bundle.files) == set(Bundle.load(exported()[0]).files)
    for name in ("offline.onnx", "stream-640.onnx"):
        fp32 = open_session(exported()[0] / name)
        assert metadata(open_session(folder / name)) == metadata(fp32)


def test_weights_are_int8_where_they_should_be_and_float_where_not() -> None:
    folder, report = quantized()
    assert "head" not in report.int8_layers
    assert "encoder.subsampling.first" not in report.int8_layers
    assert "encoder.blocks.0.attention.project_in" in report.int8_layers
    assert len(report.int8_layers) == len(layer_names(torch.nn.Linear, *CONVOLUTIONS)) - 2
    for name in ("offline.onnx", "stream-640.onnx"):
        graph = onnx.load(folder / name).graph
        operators = {node.op_type for node in graph.node}
        assert {"QuantizeLinear", "DequantizeLinear", "Softmax", "LayerNormalization"} <= operators
        assert "DynamicQuantizeLinear" not in operators
        matrices = [item for item in graph.initializer if len(item.dims) > 1]
        whole = [item for item in matrices if item.data_type == TensorProto.INT8]
        assert len(whole) == len(report.int8_layers)


def test_int8_stays_close_to_fp32_in_both_modes() -> None:
    folder, report = quantized()
    features = recordings(5, seed=12)
    fp32, int8 = OnnxEngine(Bundle.load(exported()[0])), OnnxEngine(Bundle.load(folder))
    for mode in int8.modes:
        reference = fp32.log_probs(features, mode)
        found = int8.log_probs(features, mode)
        assert kl_divergence(reference, found) < 0.02
        agree = [(a.argmax(1) == b.argmax(1)).mean() for a, b in zip(reference, found, strict=True)]
        assert np.mean(agree) > 0.9
    assert report.kl <= CONFIG.max_kl


def test_a_loud_neighbour_changes_exactly_nothing() -> None:
    folder, _ = quantized()
    session = open_session(folder / "offline.onnx")
    one, other = recordings(2, seed=20)
    alone = run_offline(session, [one])[0]
    for neighbour in (other[: len(one)], 30 * other[: len(one)], np.zeros_like(one)):
        beside = run_offline(session, [one, neighbour])[0]
        np.testing.assert_array_equal(alone, beside)
    engine = OnnxEngine(Bundle.load(folder))
    np.testing.assert_array_equal(
        engine.log_probs([one], "stream")[0], engine.log_probs([one, 30 * other], "stream")[0]
    )


def test_the_report_adds_up() -> None:
    folder, report = quantized()
    size = sum((folder / name).stat().st_size for name in ("offline.onnx", "stream-640.onnx"))
    assert report.bytes_int8 == size
    assert report.size_ratio == pytest.approx(report.bytes_fp32 / size) and report.size_ratio > 1.5
    assert {harm.layer for harm in report.harms} == {*report.int8_layers, *report.reverted}
    kls = [harm.kl for harm in report.harms]
    assert kls == sorted(kls, reverse=True) and kls[0] > 0
    assert report.figures()["harms"][0] == asdict(report.harms[0])


def test_a_strict_limit_sends_the_most_harmful_layers_back(tmp_path: Path) -> None:
    _, report = quantized()
    config = QuantizeConfig(
        calibration_streams=4, probe_recordings=2, chunks_per_stream=1,
        max_kl=report.kl / 4, max_reverted=3, reduce_range=True,
    )  # fmt: skip
    strict = quantize_bundle(exported()[0], tmp_path / "int8", recordings(4, seed=4), config)
    worst = [harm.layer for harm in strict.harms]
    assert 1 <= len(strict.reverted) <= 3
    assert list(strict.reverted) == worst[: len(strict.reverted)]
    assert strict.kl < sum(harm.kl for harm in strict.harms)
    Bundle.load(tmp_path / "int8")


def test_one_loud_recording_does_not_cost_the_others_their_resolution(tmp_path: Path) -> None:
    features = recordings(4, seed=4)
    features[-1] *= 40
    config = QuantizeConfig(calibration_streams=4, probe_recordings=2, chunks_per_stream=1)
    report = quantize_bundle(exported()[0], tmp_path / "int8", features, config)
    assert "encoder.subsampling.second" in {bound.layer for bound in report.bounds}
    assert report.kl < report.harms[0].kl  # all layers narrowed, against the worst one alone


def test_a_bound_halves_as_long_as_that_helps(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["sound", "weight"], ["heard"], "first")],
        "one layer", [], [],
        [numpy_helper.from_array(np.zeros((1, 1, 1), np.float32), "weight")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph)
    ends = {"lowest": {"data": [-160.0]}, "highest": {"data": [80.0]}}
    ranges = tmp_path / "ranges.json"
    ranges.write_text(json.dumps({"data": {"heard": ends, "CLS": "TensorData"}}))

    def trial(bounds: Sequence[Bound]) -> float:
        clipped = json.loads(clip_ranges(ranges, model, bounds, tmp_path / "c.json").read_text())
        (low,), (high,) = (clipped["data"]["heard"][side]["data"] for side in ends)
        return abs(low + 11) + abs(high - 80)  # best at -11 and 80

    bounds, kl = fit_bounds(["first"], ranges, model, trial, start=trial(()))
    assert bounds == (Bound(layer="first", place="output", side="lowest", value=-10.0),)
    assert kl == 1.0
    wider = [Bound(layer="first", place="output", side="highest", value=500.0)]
    assert clip_ranges(ranges, model, wider, tmp_path / "w.json").read_text() == ranges.read_text()


def test_only_an_fp32_bundle_and_real_recordings_are_taken(tmp_path: Path) -> None:
    folder, _ = quantized()
    with pytest.raises(AuricleError, match="only fp32"):
        quantize_bundle(folder, tmp_path / "x", recordings(1, seed=1), CONFIG)
    with pytest.raises(AuricleError, match="no recording to calibrate"):
        quantize_bundle(exported()[0], tmp_path / "x", [], CONFIG)


def test_preparing_changes_no_output_and_puts_biases_into_gemm(tmp_path: Path) -> None:
    source = exported()[0] / "offline.onnx"
    prepare(source, tmp_path / "prepared.onnx")
    graph = onnx.load(tmp_path / "prepared.onnx")
    assert [n.op_type for n in layers(graph)].count("Gemm") == len(layer_names(torch.nn.Linear))
    products = {node.output[0] for node in layers(graph) if node.op_type == "Gemm"}
    between = [n for n in graph.graph.node if n.op_type == "Relu" and n.input[0] in products]
    assert len(between) == 2  # one per feed-forward: nothing stands between its products
    features = recordings(3, seed=6)
    before, after = open_session(source), open_session(tmp_path / "prepared.onnx")
    for one, other in zip(run_offline(before, features), run_offline(after, features), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_compacting_changes_no_output_and_is_smaller(tmp_path: Path) -> None:
    source = exported()[0] / "offline.onnx"
    model = onnx.load(source)
    model.graph.initializer.append(
        numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]), "twin")
    )
    before = model.ByteSize()
    names = {node.name for node in layers(model)}
    compact(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "small.onnx")
    assert model.ByteSize() < before and {node.name for node in layers(model)} == names
    features = recordings(2, seed=6)
    for one, other in zip(
        outputs(exported()[0], features), run_offline(open_session(tmp_path / "small.onnx"),
                                                      features), strict=True
    ):  # fmt: skip
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_depthwise_convolutions_are_candidates_only_when_asked_for() -> None:
    model = onnx.load(exported()[0] / "offline.onnx")
    before = candidates(model, depthwise=False)
    node = [node for node in layers(model) if node.op_type == "Conv"][-1]
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("group", 32))
    assert set(before) - set(candidates(model, depthwise=False)) == {node.name}
    assert candidates(model, depthwise=True) == before


def test_stream_calibration_carries_the_caches_that_fp32_really_had() -> None:
    graph = exported()[0] / "stream-640.onnx"
    feeds = stream_feeds(graph, recordings(10, seed=4), chunk_frames=16, chunks_per_stream=3)
    assert sum(len(feed["x"]) for feed in feeds if not feed["processed_len"].any()) == 10
    later = [feed for feed in feeds if feed["processed_len"].any()]
    assert later and all(np.abs(feed["attn_cache"]).max() > 0.01 for feed in later)
    assert max(int(feed["processed_len"].max()) for feed in feeds) >= 32
    assert [feed["x"].shape[0] for feed in offline_feeds(recordings(3, seed=1))] == [1, 1, 1]


def test_vnni_is_read_from_the_cpus_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags : sse avx2 fma\n", encoding="ascii")
    assert not has_vnni(info)
    info.write_text("flags\t\t: avx2 avx512f avx512_vnni\n", encoding="ascii")
    assert has_vnni(info)
    assert not has_vnni(tmp_path / "absent")


def test_kl_is_zero_for_equal_and_positive_for_different_outputs() -> None:
    p_TV = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], dtype=np.float32))
    q_TV = np.log(np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], dtype=np.float32))
    assert kl_divergence([p_TV], [p_TV]) == 0.0
    expected = 0.7 * np.log(0.7 / 0.6) + 0.2 * np.log(0.2 / 0.3)
    assert kl_divergence([p_TV], [q_TV]) == pytest.approx(expected / 2, rel=1e-4)
