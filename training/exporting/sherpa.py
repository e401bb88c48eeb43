"""A bundle's streaming graph in the shape that sherpa-onnx loads as ``zipformer2_ctc``.

The weights and the chunks are the same; only the doors differ. sherpa-onnx keeps six states for each
layer, whose sizes follow from metadata; here they are four parts of the attention cache and two of
the convolutions' cache. It feeds ``T`` frames and moves on by ``decode_chunk_len``, so half-settled
chunks (`features.streaming`) are said exactly: the graph gives the settled frames only. It knows no
running normalisation and no partial chunk: the cold prior is folded in, and a client must send
silence after the last word. It wants the samples as the bundle's front end scales them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from features.bundle import Bundle, BundleConfig, ChunkGraph
from features.streaming import settled_frames
from governance.errors import AuricleError

_EMBED_SHAPE = (128, 3, 19)  # of the state that Zipformer's own front end keeps; handed on here
_KINDS = ("key", "nonlin", "value1", "value2", "conv1", "conv2")
_SPACE = "▁"


@dataclass(frozen=True, kw_only=True)
class SherpaExport:
    """Files for ``OnlineRecognizer.from_zipformer2_ctc``."""

    model: Path
    tokens: Path
    sample_scale: float  # by which samples between -1 and 1 must be multiplied


def export_for_sherpa(bundle: Bundle, folder: Path) -> SherpaExport:
    """Write the model and its tokens into ``folder``."""
    config = bundle.config
    graph = config.chunks[config.default_chunk_ms]
    width, past = config.encoder.d_model, config.encoder.kernel - 1
    if width % 4 or past % 2:
        raise AuricleError(
            f"d_model {width} and convolutions with {past} past frames cannot be divided among "
            "the states of a zipformer2_ctc",
            item=str(bundle.folder),
        )
    model = onnx.load(bundle.path(graph.file))
    window, sizes = _window(model), _sizes(config, graph)
    states = [f"{kind}_{layer}" for layer in range(config.encoder.layers) for kind in _KINDS]
    x = helper.make_tensor_value_info(
        "features", TensorProto.FLOAT, ["N", window, config.feature_spec.mel_bins]
    )
    inputs = [x, *_infos(sizes, states, ""), *_last_infos("")]
    settled = settled_frames(graph.chunk_frames)
    vocabulary = bundle.token_table().size
    logp = helper.make_tensor_value_info("logp", TensorProto.FLOAT, ["N", settled, vocabulary])
    outputs = [logp, *_infos(sizes, states, "new_"), *_last_infos("new_")]
    nodes = [*_before(config), *model.graph.node, *_after(config)]
    constants = [*model.graph.initializer, *_constants(config, graph, sizes, window)]
    made = helper.make_model(
        helper.make_graph(nodes, "zipformer2_ctc", inputs, outputs, constants),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    helper.set_model_props(made, _metadata(config, graph, sizes, window))
    folder.mkdir(parents=True, exist_ok=True)
    path, tokens = folder / "model.onnx", folder / "tokens.txt"
    onnx.save(made, path)
    tokens.write_text(bundle.path("tokens.txt").read_text(encoding="utf-8"), encoding="utf-8")
    return SherpaExport(model=path, tokens=tokens, sample_scale=config.feature_spec.sample_scale)


def _window(model: Any) -> int:
    """Feature frames that the graph takes at a time."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)


def _sizes(config: BundleConfig, graph: ChunkGraph) -> dict[str, list[Any]]:
    """Shapes of the states; keys, ``nonlin`` and values together are keys and values of a frame."""
    width, left = config.encoder.d_model, graph.left_frames
    nonlin, value = 3 * width // 4, width // 4  # sherpa-onnx derives the former from the width
    key = 2 * width - nonlin - 2 * value
    past = (config.encoder.kernel - 1) // 2
    return {
        "key": [left, "N", key],
        "nonlin": [1, "N", left, nonlin],
        "value1": [left, "N", value],
        "value2": [left, "N", value],
        "conv1": ["N", width, past],
        "conv2": ["N", width, past],
    }


def _metadata(
    config: BundleConfig, graph: ChunkGraph, sizes: dict[str, list[Any]], window: int
) -> dict[str, str]:
    return {
        "model_type": "zipformer2",
        "version": "1",
        "T": str(window),
        "decode_chunk_len": str(config.subsampling * settled_frames(graph.chunk_frames)),
        "encoder_dims": str(config.encoder.d_model),
        "query_head_dims": str(sizes["key"][2]),
        "value_head_dims": str(sizes["value1"][2]),
        "num_heads": "1",
        "num_encoder_layers": str(config.encoder.layers),
        "cnn_module_kernels": str(2 * sizes["conv1"][2]),
        "left_context_len": str(graph.left_frames),
    }


def _infos(sizes: dict[str, list[Any]], states: list[str], prefix: str) -> list[Any]:
    return [
        helper.make_tensor_value_info(
            prefix + state, TensorProto.FLOAT, sizes[state.partition("_")[0]]
        )
        for state in states
    ]


def _last_infos(prefix: str) -> list[Any]:
    return [
        helper.make_tensor_value_info(
            f"{prefix}embed_states", TensorProto.FLOAT, ["N", *_EMBED_SHAPE]
        ),
        helper.make_tensor_value_info(f"{prefix}processed_lens", TensorProto.INT64, ["N"]),
    ]


def _constants(
    config: BundleConfig, graph: ChunkGraph, sizes: dict[str, list[Any]], window: int
) -> list[Any]:
    nonlin, value = sizes["nonlin"][3], sizes["value1"][2]
    made = {
        "door_mean": np.asarray(config.norm.mean, np.float32),
        "door_std": np.asarray(config.norm.std, np.float32),
        "door_T": np.array([window], np.int64),
        "door_0": np.array([0], np.int64),
        "door_1": np.array([1], np.int64),
        "door_settled": np.array([settled_frames(graph.chunk_frames)], np.int64),
        "door_kv_parts": np.array([sizes["key"][2], nonlin, value, value], np.int64),
        "door_conv_parts": np.array([sizes["conv1"][2]] * 2, np.int64),
    }
    return [numpy_helper.from_array(array, name) for name, array in made.items()]


def _before(config: BundleConfig) -> list[Any]:
    """From sherpa-onnx's inputs to the graph's own."""
    node = helper.make_node
    nodes = [
        node("Sub", ["features", "door_mean"], ["door_centred"]),
        node("Div", ["door_centred", "door_std"], ["x"]),
        node("Shape", ["features"], ["door_rows"], start=0, end=1),
        node("Expand", ["door_T", "door_rows"], ["x_len"]),
        node("Identity", ["processed_lens"], ["processed_len"]),
    ]
    layers = range(config.encoder.layers)
    for at in layers:
        for kind in ("key", "value1", "value2"):
            nodes.append(node("Transpose", [f"{kind}_{at}"], [f"door_{kind}_{at}"], perm=[1, 0, 2]))
        parts = [f"door_key_{at}", f"door_nonlin_{at}", f"door_value1_{at}", f"door_value2_{at}"]
        nodes += [
            node("Squeeze", [f"nonlin_{at}", "door_0"], [f"door_nonlin_{at}"]),
            node("Concat", parts, [f"door_kv_{at}"], axis=2),
            node("Unsqueeze", [f"door_kv_{at}", "door_0"], [f"door_kv1_{at}"]),
            node("Concat", [f"conv1_{at}", f"conv2_{at}"], [f"door_conv_{at}"], axis=2),
            node("Unsqueeze", [f"door_conv_{at}", "door_0"], [f"door_conv1_{at}"]),
        ]
    nodes += [
        node("Concat", [f"door_kv1_{at}" for at in layers], ["attn_cache"], axis=0),
        node("Concat", [f"door_conv1_{at}" for at in layers], ["conv_cache"], axis=0),
    ]
    return nodes


def _after(config: BundleConfig) -> list[Any]:
    """From the graph's outputs to sherpa-onnx's states."""
    node, layers = helper.make_node, range(config.encoder.layers)
    nodes = [
        node("Slice", ["log_probs", "door_0", "door_settled", "door_1"], ["logp"]),
        node("Identity", ["embed_states"], ["new_embed_states"]),
        node("Identity", ["new_processed_len"], ["new_processed_lens"]),
        *(
            node(
                "Split",
                [f"new_{name}"],
                [f"door_new_{name}_{at}" for at in layers],
                axis=0,
                num_outputs=len(layers),
            )
            for name in ("attn_cache", "conv_cache")
        ),
    ]
    for at in layers:
        kv, conv = f"door_new_attn_cache_{at}", f"door_new_conv_cache_{at}"
        made = ("key", "nonlin", "value1", "value2")
        nodes += [
            node("Squeeze", [kv, "door_0"], [f"{kv}_row"]),
            node("Split", [f"{kv}_row", "door_kv_parts"], [f"{kv}_{part}" for part in made],
                 axis=2),
            node("Unsqueeze", [f"{kv}_nonlin", "door_0"], [f"new_nonlin_{at}"]),
            *(
                node("Transpose", [f"{kv}_{part}"], [f"new_{part}_{at}"], perm=[1, 0, 2])
                for part in ("key", "value1", "value2")
            ),
            node("Squeeze", [conv, "door_0"], [f"{conv}_row"]),
            node("Split", [f"{conv}_row", "door_conv_parts"],
                 [f"new_conv1_{at}", f"new_conv2_{at}"], axis=2),
        ]  # fmt: skip
    return nodes
