"""What happens to a graph before and while it is quantised, and which layers may be.

Static QDQ, never dynamic: dynamic ranges are taken over the batch, so a loud neighbour would change
a quiet speaker's transcript.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from training.engines import Mode

Feed = dict[str, Any]
WEIGHTED = ("MatMul", "Gemm", "Conv")
_FLAGS_FILE = Path("/proc/cpuinfo")
_VNNI_FLAGS = {"avx512_vnni", "avx_vnni"}


def has_vnni(cpuinfo: Path = _FLAGS_FILE) -> bool:
    """Whether this CPU multiplies int8 without saturating 16-bit sums."""
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return any(
        _VNNI_FLAGS & set(line.partition(":")[2].split())
        for line in text.splitlines()
        if line.startswith("flags")
    )


def prepare(source: Path, target: Path) -> None:
    """Infer shapes, fold constants, move biases into Gemm, whose integer kernel adds them."""
    quant_pre_process(source, target, skip_symbolic_shape=True)
    model = onnx.load(target)
    fuse_biases(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes with constant weights, in execution order; attention's own products are not among
    them."""
    constants = {item.name for item in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in WEIGHTED and node.input[1] in constants
    ]


def candidates(model: onnx.ModelProto, *, depthwise: bool) -> list[str]:
    """Layers that may become int8: not the first convolution, not the output layer.

    Depthwise convolutions are few weights and slow as integers, so they are asked for apart.
    """
    found = layers(model)
    first = next((node.name for node in found if node.op_type == "Conv"), "")
    kept_out = {first, found[-1].name}
    return [
        node.name
        for node in found
        if node.name not in kept_out and (depthwise or not _is_grouped(node))
    ]


def quantize_graph(
    prepared: Path,
    target: Path,
    chosen: Sequence[str],
    feeds: Sequence[Feed],
    *,
    reduce_range: bool,
    ranges: Path | None = None,
) -> None:
    """Write ``prepared`` with the chosen layers as int8.

    Activations U8, weights S8 per channel; results stay float, which saves a rounding and is
    faster. ``ranges`` keeps the calibration between calls on the same graph.
    """
    metadata = onnx.load(prepared).metadata_props
    quantize_static(
        str(prepared),
        str(target),
        _Feeds(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(WEIGHTED),
        nodes_to_quantize=list(chosen),
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibration_cache_path=ranges,
        extra_options={"OpTypesToExcludeOutputQuantization": list(WEIGHTED)},
    )
    model = onnx.load(target)
    helper.set_model_props(model, {item.key: item.value for item in metadata})
    onnx.save(model, target)


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next input of the graph, None at the end."""
        return next(self._feeds, None)


def graph_mode(model: onnx.ModelProto) -> Mode:
    """Whether a graph takes whole files or chunks."""
    return "stream" if len(model.graph.input) > 2 else "full"


def fuse_biases(model: onnx.ModelProto) -> int:
    """Turn MatMul(x, W) + b into Reshape, Gemm, Reshape; gives how many.

    Only Gemm has an integer kernel that adds a bias; measured 1.3 times faster than fp32 where
    MatMul and Add stayed at 1.1.
    """
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    pairs: dict[str, tuple[onnx.NodeProto, str]] = {}  # by MatMul's result: Add, bias
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            following = users.get(node.output[0], [])
            bias = _bias(node, following, constants)
            if bias is not None:
                pairs[node.output[0]] = (following[0], bias)
    added = {add.output[0] for add, _ in pairs.values()}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in pairs:
            nodes += _gemm(node, *pairs[node.output[0]], constants)
        elif node.output[0] not in added:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(_new_constants(nodes, constants))
    return len(pairs)


def _bias(
    node: onnx.NodeProto, following: Sequence[onnx.NodeProto], constants: dict[str, Any]
) -> str | None:
    """The vector that the only user of ``node`` adds to it."""
    if len(following) != 1 or following[0].op_type != "Add":
        return None
    others = [name for name in following[0].input if name != node.output[0]]
    known = len(others) == 1 and others[0] in constants and len(constants[others[0]].dims) == 1
    return others[0] if known and len(constants[node.input[1]].dims) == 2 else None


def _gemm(
    node: onnx.NodeProto, add: onnx.NodeProto, bias: str, constants: dict[str, Any]
) -> list[onnx.NodeProto]:
    source, weight = node.input
    width_in, width_out = constants[weight].dims
    result, name = add.output[0], node.name
    return [
        helper.make_node("Shape", [source], [f"{result}.rows"], f"{name}.rows", start=0, end=-1),
        helper.make_node(
            "Concat", [f"{result}.rows", f"width.{width_out}"], [f"{result}.shape"],
            f"{name}.shape", axis=0,
        ),
        helper.make_node(
            "Reshape", [source, f"flat.{width_in}"], [f"{result}.flat"], f"{name}.flat"
        ),
        helper.make_node("Gemm", [f"{result}.flat", weight, bias], [f"{result}.gemm"], name),
        helper.make_node(
            "Reshape", [f"{result}.gemm", f"{result}.shape"], [result], f"{name}.unflat"
        ),
    ]  # fmt: skip


def _new_constants(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Any]
) -> list[onnx.TensorProto]:
    """The shape constants that the new nodes name."""
    wanted = {name for node in nodes for name in node.input} - constants.keys()
    made = []
    for name in sorted(wanted):
        kind, _, width = name.partition(".")
        if kind in ("flat", "width") and width.isdigit():
            values = [-1, int(width)] if kind == "flat" else [int(width)]
            made.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
    return made


def _is_grouped(node: onnx.NodeProto) -> bool:
    return any(item.name == "group" and item.i > 1 for item in node.attribute)
