"""What happens to a graph before and while it is quantised, and which layers may be.

Static QDQ, never dynamic: dynamic ranges are taken over the batch, so a loud neighbour would change
a quiet speaker's transcript.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from training.quantizing.biases import fuse_biases

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
        node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in constants
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

    Activations U8, weights S8 per channel. Results of products stay float, which saves a rounding
    and is faster; a convolution computes in integers only if its result is rounded too.
    ``ranges`` keeps the calibration between calls on the same graph.
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
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )
    model = onnx.load(target)
    own = {item.key: item.value for item in metadata if not item.key.startswith("onnx.")}
    helper.set_model_props(model, own)
    onnx.save(model, target)


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next input of the graph, None at the end."""
        return next(self._feeds, None)


def _is_grouped(node: onnx.NodeProto) -> bool:
    return any(item.name == "group" and item.i > 1 for item in node.attribute)
