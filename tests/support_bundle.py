"""A tiny model bundle with random weights: real ONNX graphs that obey the bundle's contract.

Two strided convolutions, then layers of a causal depthwise convolution over its cache and a causal
mean over the attention cache, so that streaming equals the whole file through every cache. It
knows no language, but quiet frames are blanks, loud ones letters: endpoints and silence behave.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import numpy_helper

from features.bundle import BundleConfig, ChunkGraph, EncoderDims, NormPrior, Training, write_bundle
from features.decode import DecoderConfig
from features.fbank import log_mel
from features.lexicon import Lexicon
from features.spec import FeatureSpec
from features.streaming import settled_frames
from features.tokens import TokenTable

ALPHABET = "abcdefghijklmnopqrstuvwxyz' "
LAYERS, WIDTH, KERNEL, LEFT = 2, 16, 5, 32
_OPS = '<ir_version: 10, opset_import: ["": 20]>'


def babble(seconds: float, *, seed: int = 7, rate_hz: int = 16_000) -> NDArray[np.float32]:
    """Noise bursts in changing bands with pauses: loud and quiet like speech, known to nobody."""
    generator = np.random.default_rng(seed)
    time_T = np.arange(round(seconds * rate_hz)) / rate_hz
    envelope_T = np.clip(np.sin(2 * np.pi * 1.7 * time_T + generator.uniform(0, 6)), 0, 1)
    pitch_T = 900 + 700 * np.sin(2 * np.pi * 0.6 * time_T + generator.uniform(0, 6))
    tone_T = np.sin(2 * np.pi * np.cumsum(pitch_T) / rate_hz)
    noise_T = generator.normal(0, 0.3, len(time_T))
    quiet_T = generator.normal(0, 2e-4, len(time_T))
    return (0.2 * envelope_T * (tone_T + noise_T) + quiet_T).astype(np.float32)


def hush(seconds: float, *, seed: int = 3, rate_hz: int = 16_000) -> NDArray[np.float32]:
    """The noise of a quiet room."""
    generator = np.random.default_rng(seed)
    return generator.normal(0, 2e-4, round(seconds * rate_hz)).astype(np.float32)


def make_bundle(
    folder: Path,
    *,
    decoder: DecoderConfig | None = None,
    chunk_ms: int = 640,
    words: Sequence[str] = (),
    name: str = "tiny",
    spec: FeatureSpec | None = None,
    seed: int = 11,
) -> Path:
    """Write the tiny bundle into ``folder`` and return the folder; ``words`` are its lexicon.

    Another ``seed`` is another version: it hears other letters.
    """
    spec = spec or FeatureSpec()
    table = TokenTable.from_alphabet(ALPHABET)
    weights = _weights(table.size, seed)
    made = folder.parent / f"{folder.name}-made"
    made.mkdir(parents=True, exist_ok=True)
    metadata = {"feature_fingerprint": spec.fingerprint(), "token_digest": table.digest}
    stream_file = f"stream-{chunk_ms}.onnx"
    _save(made / "offline.onnx", _offline_text(table.size), weights, metadata)
    _save(made / stream_file, _stream_text(table.size, chunk_ms // 40), weights, metadata)
    table.to_file(made / "tokens.txt")
    mel_TF = log_mel(babble(20.0, seed=1), spec)
    config = BundleConfig(
        name=name,
        variant="fp32",
        feature_spec=spec,
        token_digest=table.digest,
        encoder=EncoderDims(layers=LAYERS, d_model=WIDTH, kernel=KERNEL, left_frames=LEFT, heads=1),
        chunks={
            chunk_ms: ChunkGraph(file=stream_file, chunk_frames=chunk_ms // 40, left_frames=LEFT)
        },
        norm=NormPrior(
            mean=tuple(float(value) for value in mel_TF.mean(axis=0)),
            std=tuple(float(value) for value in mel_TF.std(axis=0)),
            prior_frames=300,
        ),
        decoder=decoder or DecoderConfig(kind="greedy"),
        domain="noise",
        normaliser="en-1",
        trained=Training(run_id="none", git_commit="none", steps=0),
    )
    files = {name: made / name for name in ("offline.onnx", stream_file, "tokens.txt")}
    if words:
        files["lexicon.txt"] = made / "lexicon.txt"
        Lexicon.from_words(words).to_file(files["lexicon.txt"])
    write_bundle(folder, config, files)
    return folder


def _weights(vocabulary: int, seed: int) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    front1 = generator.normal(0, 0.12, (WIDTH, 80, 3))
    front1 -= front1.mean(axis=(1, 2), keepdims=True)  # blind to the level ...
    front1[0] = 1 / 240  # ... but for channel 0, which is the level
    front2 = generator.normal(0, 0.3, (WIDTH, WIDTH, 3))
    front2[:, 0] = 0.0
    front2[0] = 0.0
    front2[0, 0] = 1 / 3
    weights = {"front1": front1, "front2": front2}
    for layer in range(LAYERS):
        weights[f"depth{layer}"] = generator.normal(0, 0.4, (WIDTH, 1, KERNEL))
    weights["mean_kernel"] = np.full((2 * WIDTH, 1, LEFT + 1), 1 / (LEFT + 1))
    head = generator.normal(0, 0.4, (WIDTH, vocabulary))
    head[:, 1] *= 2.5  # the space: words of a believable length
    head[0] = 0.0
    head[:, 0] = 0.0
    head[0, 0] = -6.0
    weights["head"] = head
    return {name: value.astype(np.float32) for name, value in weights.items()}


_FRONT = """
  xt = Transpose <perm = [0, 2, 1]> (x)
  f1 = Conv <strides = [2]> (xt, front1)
  f2 = Conv <strides = [2]> (f1, front2)
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  zero = Constant <value_ints = [0]> ()
  l0 = Sub (x_len, one)
  l1 = Max (l0, zero)
  l2 = Div (l1, two)
  l3 = Sub (l2, one)
  l4 = Max (l3, zero)
  heard = Div (l4, two)
  small = Constant <value_float = 0.3> ()
"""


def _layer(layer: int, source: str) -> str:
    """Both caches are [left padding | new frames]; the mean runs over the attention cache."""
    i = layer
    return f"""
  cc{i} = Concat <axis = 2> (conv_in{i}, {source})
  cv{i} = Conv <group = {WIDTH}> (cc{i}, depth{i})
  ct{i} = Tanh (cv{i})
  cs{i} = Mul (ct{i}, small)
  h{i} = Add ({source}, cs{i})
  kv{i} = Concat <axis = 1> (h{i}, ct{i})
  kc{i} = Concat <axis = 2> (attn_in{i}, kv{i})
  av{i} = Conv <group = {2 * WIDTH}> (kc{i}, mean_kernel)
  a0{i}, a1{i} = Split <axis = 1, num_outputs = 2> (av{i})
  as{i} = Mul (a1{i}, small)
  o{i} = Add (h{i}, as{i})
"""


def _head() -> str:
    return f"""
  ht = Transpose <perm = [0, 2, 1]> (o{LAYERS - 1})
  logits = MatMul (ht, head)
  log_probs = LogSoftmax <axis = -1> (logits)
"""


def _offline_text(vocabulary: int) -> str:
    body = _FRONT + "  out_len = Identity (heard)\n"
    for i in range(LAYERS):
        source = f"o{i - 1}" if i else "f2"
        body += f"""
  b{i} = Shape <start = 0, end = 1> (x)
  cshape{i} = Constant <value_ints = [{WIDTH}, {KERNEL - 1}]> ()
  ashape{i} = Constant <value_ints = [{2 * WIDTH}, {LEFT}]> ()
  cfull{i} = Concat <axis = 0> (b{i}, cshape{i})
  afull{i} = Concat <axis = 0> (b{i}, ashape{i})
  conv_in{i} = ConstantOfShape (cfull{i})
  attn_in{i} = ConstantOfShape (afull{i})
"""
        body += _layer(i, source)
    return (
        f"{_OPS} offline (float[B, T, 80] x, int64[B] x_len) => "
        f"(float[B, S, {vocabulary}] log_probs, int64[B] out_len) {{ {body} {_head()} }}"
    )


def _cache_out(layer: int) -> str:
    """The last frames that were real: gathered from ``out_len`` on, for each row of the batch."""
    i = layer
    return f"""
  cidx{i} = Add (ol_B11, crange)
  csh{i} = Shape (conv_in{i})
  cix{i} = Expand (cidx{i}, csh{i})
  cnew{i} = GatherElements <axis = 2> (cc{i}, cix{i})
  aidx{i} = Add (ol_B11, arange)
  ash{i} = Shape (attn_in{i})
  aix{i} = Expand (aidx{i}, ash{i})
  anew{i} = GatherElements <axis = 2> (kc{i}, aix{i})
  anewt{i} = Transpose <perm = [0, 2, 1]> (anew{i})
  cnewl{i} = Unsqueeze (cnew{i}, zero)
  anewl{i} = Unsqueeze (anewt{i}, zero)
"""


def _stream_text(vocabulary: int, chunk: int) -> str:
    ints = {"crange": range(KERNEL - 1), "arange": range(LEFT)}
    body = f"""{_FRONT}
  whole = Constant <value_ints = [{chunk}]> ()
  hop = Constant <value_ints = [{settled_frames(chunk)}]> ()
  is_full = Equal (heard, whole)
  out_len = Where (is_full, hop, heard)
  axes12 = Constant <value_ints = [1, 2]> ()
"""
    body += "  ol_B11 = Unsqueeze (out_len, axes12)\n"
    for name, values in ints.items():
        body += f"  {name} = Constant <value_ints = {list(values)}> ()\n"
    for i in range(LAYERS):
        source = f"o{i - 1}" if i else "f2"
        body += f"""
  at{i} = Constant <value_int = {i}> ()
  conv_in{i} = Gather <axis = 0> (conv_cache, at{i})
  attn_T{i} = Gather <axis = 0> (attn_cache, at{i})
  attn_in{i} = Transpose <perm = [0, 2, 1]> (attn_T{i})
"""
        body += _layer(i, source) + _cache_out(i)
    news = [", ".join(f"{kind}newl{i}" for i in range(LAYERS)) for kind in "ac"]
    body += f"""
  new_attn_cache = Concat <axis = 0> ({news[0]})
  new_conv_cache = Concat <axis = 0> ({news[1]})
  new_processed_len = Add (processed_len, out_len)
"""
    frames = 4 * chunk + 3
    caches = (
        f"float[{LAYERS}, B, {LEFT}, {2 * WIDTH}] {{0}}attn_cache, "
        f"float[{LAYERS}, B, {WIDTH}, {KERNEL - 1}] {{0}}conv_cache, int64[B] {{0}}processed_len"
    )
    return (
        f"{_OPS} stream (float[B, {frames}, 80] x, int64[B] x_len, {caches.format('')}) => "
        f"(float[B, {chunk}, {vocabulary}] log_probs, int64[B] out_len, {caches.format('new_')}) "
        f"{{ {body} {_head()} }}"
    )


def _save(
    path: Path, text: str, weights: dict[str, NDArray[np.float32]], metadata: dict[str, str]
) -> None:
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    for name in sorted(used & weights.keys()):
        model.graph.initializer.append(numpy_helper.from_array(weights[name], name))
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
