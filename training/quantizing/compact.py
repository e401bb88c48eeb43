"""Bytes that int8 does not need: names that nobody reads, equal constants kept twice, shapes.

On a small model they are a tenth of the file.
"""

import onnx

from training.quantizing.graph import WEIGHTED

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def compact(model: onnx.ModelProto) -> None:
    """Shrink in place; inputs, outputs and the names of layers stay."""
    graph = model.graph
    del graph.value_info[:]
    _share_equal_constants(graph)
    fixed = {item.name for item in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""}
    for name in _tensor_names(graph):
        names.setdefault(name, name if name in fixed else _short(len(names)))
    for constant in graph.initializer:
        constant.name = names[constant.name]
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        if node.op_type not in WEIGHTED:
            node.name = ""


def _share_equal_constants(graph: onnx.GraphProto) -> None:
    """Zero points above all: every layer of one width has the same."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    kept = []
    for constant in graph.initializer:
        key = (constant.data_type, tuple(constant.dims), _content(constant))
        same[constant.name] = first.setdefault(key, constant.name)
        if same[constant.name] == constant.name:
            kept.append(constant)
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _content(constant: onnx.TensorProto) -> bytes:
    nameless = onnx.TensorProto()
    nameless.CopyFrom(constant)
    nameless.name = ""
    return nameless.SerializeToString(deterministic=True)


def _tensor_names(graph: onnx.GraphProto) -> list[str]:
    constants = [constant.name for constant in graph.initializer]
    return constants + [name for node in graph.node for name in (*node.input, *node.output)]


def _short(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        text = _DIGITS[digit] + text
    return f"_{text}"
