"""Which layers suffer as int8: each alone, by the KL divergence of the output from fp32's."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.engines import Floats
from training.onnx_engine import open_session, run_offline
from training.quantizing.graph import Feed, quantize_graph

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class LayerHarm:
    """What one layer costs as int8."""

    layer: str
    """Name of the PyTorch layer."""
    kl: float
    """Mean KL divergence per frame, this layer alone being int8."""


def kl_divergence(reference: Sequence[Floats], found: Sequence[Floats]) -> float:
    """Mean over frames of KL(reference || found), natural units; both are log-probabilities."""
    total, frames = 0.0, 0
    for p_TV, q_TV in zip(reference, found, strict=True):
        p_TV = p_TV.astype(np.float64)
        total += float((np.exp(p_TV) * (p_TV - q_TV)).sum())
        frames += len(p_TV)
    return max(0.0, total / max(1, frames))


class Probe:
    """Measures variants of one whole-file graph on the same few recordings."""

    def __init__(self, fp32: Path, features: Sequence[Floats]) -> None:
        self._features = list(features)
        self._reference = self._outputs(fp32)

    def kl(self, graph: Path) -> float:
        """How far ``graph`` is from fp32."""
        return kl_divergence(self._reference, self._outputs(graph))

    def _outputs(self, graph: Path) -> list[Floats]:
        session = open_session(graph)
        return [run_offline(session, [x_TF])[0] for x_TF in self._features]


def rank_layers(
    prepared: Path,
    chosen: Sequence[str],
    feeds: Sequence[Feed],
    probe: Probe,
    *,
    reduce_range: bool,
    ranges: Path,
    progress: Progress | None = None,
) -> list[LayerHarm]:
    """Every layer alone as int8, most harmful first."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "one.onnx"
        for number, layer in enumerate(chosen, start=1):
            quantize_graph(
                prepared, target, [layer], feeds, reduce_range=reduce_range, ranges=ranges
            )
            found.append(LayerHarm(layer=layer, kl=probe.kl(target)))
            if progress:
                progress(number, len(chosen))
    return sorted(found, key=lambda harm: (-harm.kl, harm.layer))
