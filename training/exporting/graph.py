"""The two ONNX graphs of a model: whole files, and one chunk of a stream.

The exporter's graphs are tidied before they are kept: layers carry the names of the PyTorch modules
they came from, axes have names, and stack traces (which would hold this machine's paths and make
equal models differ in bytes) are dropped.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.export import Dim

from training.engines import block_frames
from training.model import AcousticModel

OPSET = 20
OFFLINE_INPUTS = ("x", "x_len")
OFFLINE_OUTPUTS = ("log_probs", "out_len")
STREAM_INPUTS = ("x", "x_len", "attn_cache", "conv_cache", "processed_len")
STREAM_OUTPUTS = ("log_probs", "out_len", "new_attn_cache", "new_conv_cache", "new_processed_len")
WEIGHTED = ("MatMul", "Gemm", "Conv")  # operators that hold a layer's weights

_TRACE_ROWS = 2  # a traced axis of 1 would be taken for a constant
_TRACE_FRAMES = 163


class _Offline(nn.Module):
    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any, x_len: Any) -> Any:
        return self.model.forward_full(x, x_len)


class _Stream(nn.Module):
    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x: Any, x_len: Any, attn_cache: Any, conv_cache: Any, processed_len: Any
    ) -> Any:
        return self.model.forward_chunk(x, x_len, attn_cache, conv_cache, processed_len)


def export_offline(model: AcousticModel, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Whole files: batch and time are dynamic."""
    x_BTF = torch.zeros(_TRACE_ROWS, _TRACE_FRAMES, model.config.mel_bins)
    lengths = torch.tensor([_TRACE_FRAMES, _TRACE_FRAMES - 40])
    shapes = {"x": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, "x_len": {0: Dim.DYNAMIC}}
    graph = _trace(_Offline(model), (x_BTF, lengths), shapes, OFFLINE_INPUTS, OFFLINE_OUTPUTS)
    _name_axes(graph, {"x": ("batch", "frames"), "log_probs": ("batch", "out_frames")})
    _finish(graph, model, path, metadata)


def export_stream(
    model: AcousticModel, path: Path, *, chunk_frames: int, metadata: Mapping[str, str]
) -> None:
    """One chunk of ``chunk_frames`` encoder frames with named caches: only batch is dynamic."""
    frames = block_frames(chunk_frames)
    x_BTF = torch.zeros(_TRACE_ROWS, frames, model.config.mel_bins)
    lengths = torch.tensor([frames, frames - 20])
    caches = model.initial_caches(_TRACE_ROWS)
    shapes = {
        name: {1 if name in ("attn_cache", "conv_cache") else 0: Dim.DYNAMIC}
        for name in STREAM_INPUTS
    }
    arguments = (x_BTF, lengths, *caches)
    graph = _trace(_Stream(model), arguments, shapes, STREAM_INPUTS, STREAM_OUTPUTS)
    _name_axes(graph, {})
    _finish(graph, model, path, metadata)


def _trace(
    module: nn.Module,
    arguments: tuple[Any, ...],
    shapes: Mapping[str, Any],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
) -> onnx.ModelProto:
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter warns about its own internals and about packages that we do not need."""
    import logging

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _finish(
    graph: onnx.ModelProto, model: AcousticModel, path: Path, metadata: Mapping[str, str]
) -> None:
    _strip(graph)
    name_layers(graph, model)
    stamp(graph, metadata)
    graph.producer_version = ""
    onnx.checker.check_model(graph, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, path)


def _strip(model: onnx.ModelProto) -> None:
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    model.doc_string = graph.doc_string = ""
    graph.name = "auricle"
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


def stamp(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Set metadata_props, in sorted order; serving refuses a graph whose values differ."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))


def name_layers(model: onnx.ModelProto, module: nn.Module) -> None:
    """Name each weighted node after the PyTorch layer whose weight it holds.

    The exporter transposes linear weights and numbers its nodes; the values tell them apart (equal
    values, as before any training, by their order), and equal names in the offline and the stream
    graph let one decision hold for both.
    """
    owners: dict[str, list[str]] = {}
    for name, parameter in module.named_parameters():
        if name.endswith(".weight"):
            array = parameter.detach().cpu().numpy()
            for content in {_content(array), _content(array.T)}:
                owners.setdefault(content, []).append(name.removesuffix(".weight"))
    used: set[str] = set()
    values = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in values:
            content = _content(numpy_helper.to_array(values[node.input[1]]))
            free = (name for name in owners.get(content, []) if name not in used)
            node.name = next(free, node.name)
            used.add(node.name)


def _content(array: Any) -> str:
    return sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest()


def _name_axes(model: onnx.ModelProto, named: Mapping[str, tuple[str, ...]]) -> None:
    for item in (*model.graph.input, *model.graph.output):
        dims = [dim for dim in item.type.tensor_type.shape.dim if dim.dim_param]
        for dim, name in zip(dims, named.get(item.name, ("batch",)), strict=True):
            dim.dim_param = name
