"""Narrower ranges where a few loud values cost every other value its resolution.

A range as measured holds the loudest value ever met. In front of a normalisation, or before an
activation that maps everything below -10 to nothing, that value matters less than the step between
two levels. So the bounds of a harmful layer are halved as long as the output comes closer to fp32.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from training.quantizing.graph import layers

Place = Literal["input", "output"]
Side = Literal["lowest", "highest"]
Trial = Callable[[Sequence["Bound"]], float]  # KL from fp32 with these bounds
# The output of a layer first: where it is rounded at all, it is what an activation may ignore.
_SIDES: tuple[tuple[Place, Side], ...] = (
    ("output", "lowest"),
    ("input", "highest"),
    ("output", "highest"),
    ("input", "lowest"),
)
_MOST_HALVINGS = 6


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A limit to one side of a measured range."""

    layer: str
    """Name of the PyTorch layer."""
    place: Place
    """Its input or its output."""
    side: Side
    """Which end of the range."""
    value: float
    """The range goes no further than this."""


def fit_bounds(
    chosen: Sequence[str], ranges: Path, model: onnx.ModelProto, trial: Trial, *, start: float
) -> tuple[tuple[Bound, ...], float]:
    """Bounds that bring the output closest to fp32, and how close; ``start`` is its KL without."""
    measured = _tensors(json.loads(ranges.read_text()))
    kept: tuple[Bound, ...] = ()
    best = start
    for layer in chosen:
        for place, side in _SIDES:
            tensor = _tensor_of(model, layer, place)
            value = _value(measured, tensor, side) if tensor in measured else 0.0
            for _ in range(_MOST_HALVINGS if value else 0):
                value /= 2
                tried = (*_without(kept, layer, place, side), Bound(
                    layer=layer, place=place, side=side, value=value
                ))  # fmt: skip
                kl = trial(tried)
                if kl >= best:
                    break
                kept, best = tried, kl
    return kept, best


def clip_ranges(
    ranges: Path, model: onnx.ModelProto, bounds: Sequence[Bound], target: Path
) -> Path:
    """Write measured ranges, held within the bounds; a range that lies within stays as it is."""
    document = json.loads(ranges.read_text())
    measured = _tensors(document)
    for bound in bounds:
        tensor = _tensor_of(model, bound.layer, bound.place)
        if tensor in measured:
            inner = min if bound.side == "highest" else max
            ends = measured[tensor][bound.side]["data"]
            ends[:] = [inner(float(end), bound.value) for end in ends]
    target.write_text(json.dumps(document))
    return target


def _tensors(document: Mapping[str, Any]) -> dict[str, Any]:
    """By tensor: what ONNX Runtime's calibration cache holds of it."""
    return {name: entry for name, entry in document["data"].items() if isinstance(entry, dict)}


def _value(measured: Mapping[str, Any], tensor: str, side: Side) -> float:
    (value,) = measured[tensor][side]["data"]
    return float(value)


def _tensor_of(model: onnx.ModelProto, layer: str, place: Place) -> str:
    (node,) = (node for node in layers(model) if node.name == layer)
    return str(node.input[0] if place == "input" else node.output[0])


def _without(bounds: Sequence[Bound], layer: str, place: Place, side: Side) -> tuple[Bound, ...]:
    own = (layer, place, side)
    return tuple(bound for bound in bounds if (bound.layer, bound.place, bound.side) != own)
