"""Half-precision graphs for the GPU: float16 inside, the same names and types outside.

On the CPU they can only be checked: they load, keep the contract's types, and stay close to fp32.
"""

from pathlib import Path

import onnx

_SENSITIVE = ("LogSoftmax", "Softmax", "LayerNormalization", "Cos", "Sin", "Range")
"""Operators that stay in float32: they sum or exponentiate, and cost next to nothing."""


def convert_half(source: Path, target: Path) -> None:
    """Write ``source`` with float16 inside and its float32 inputs and outputs unchanged."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = convert_float_to_float16(
        onnx.load(source),
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_SENSITIVE],
    )
    OnnxModel(model).topological_sort()  # the converter appends its casts at the end
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target)
