"""Proof that a graph computes what PyTorch does, at lengths and batches it was not traced at."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from governance.errors import AuricleError
from training.engines import Floats, run_stream
from training.model import AcousticModel
from training.onnx_engine import open_session, run_offline, stream_step, zero_state
from training.torch_engine import TorchEngine

TOLERANCE = 1e-3
OFFLINE_BATCHES = ((163,), (7,), (401,), (40, 163, 96), (8, 700, 11, 350, 64), (256, 256))
STREAM_BATCHES = ((163,), (9,), (40, 200, 131), (67, 131, 7, 400))


class ParityError(AuricleError):
    """A graph that does not compute what its model computes."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a graph is from PyTorch, over every case."""

    graph: str
    """File name."""
    cases: int
    """Recordings compared."""
    max_error: float
    """Largest difference of a log-probability."""
    tokens_differing: int
    """Frames whose best token differs although it leads by more than the tolerance."""
    neighbour_effect: float
    """Largest change of a row's log-probabilities through its batch neighbours."""

    def figures(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)

    def require(self, *, tolerance: float = TOLERANCE) -> None:
        """Raise unless the graph may be shipped."""
        worst = max(self.max_error, self.neighbour_effect)
        if worst > tolerance or self.tokens_differing:
            raise ParityError(
                f"differs from PyTorch by {self.max_error:.2g} (allowed {tolerance:g}), in "
                f"{self.tokens_differing} tokens, and by {self.neighbour_effect:.2g} between "
                "batches",
                item=self.graph,
                mend="export again with the pinned versions of torch and onnx",
            )


def check_offline(
    model: AcousticModel,
    path: Path,
    *,
    seed: int,
    batches: Sequence[Sequence[int]] = OFFLINE_BATCHES,
) -> Parity:
    """The whole-file graph against forward_full, at every batch of unequal lengths."""
    session = open_session(path)
    torch_engine = TorchEngine(model)
    return _compare(
        path.name,
        _recordings(batches, model.config.mel_bins, seed),
        lambda features: run_offline(session, features),
        lambda features: torch_engine.log_probs(features, "full"),
    )


def check_stream(
    model: AcousticModel,
    path: Path,
    *,
    chunk_frames: int,
    seed: int,
    batches: Sequence[Sequence[int]] = STREAM_BATCHES,
) -> Parity:
    """The streaming graph, fed chunk by chunk, against PyTorch's masked whole file."""
    session = open_session(path)
    torch_engine = TorchEngine(model, chunk_frames=chunk_frames)

    def streamed(features: Sequence[Floats]) -> list[Floats]:
        return run_stream(
            lambda *chunk: stream_step(session, *chunk),
            zero_state(session, len(features)),
            features,
            chunk_frames,
        )

    return _compare(
        path.name,
        _recordings(batches, model.config.mel_bins, seed),
        streamed,
        lambda features: torch_engine.log_probs(features, "masked"),
    )


def _recordings(batches: Sequence[Sequence[int]], bins: int, seed: int) -> list[list[Floats]]:
    """Random features; rows differ in loudness, so that a leak between rows shows."""
    rng = np.random.default_rng(seed)
    return [
        [
            (rng.standard_normal((frames, bins)) * (1 + 3 * (row % 2))).astype(np.float32)
            for row, frames in enumerate(batch)
        ]
        for batch in batches
    ]


def _compare(graph: str, batches: list[list[Floats]], found_of: Any, wanted_of: Any) -> Parity:
    errors, neighbours, differing = [0.0], [0.0], 0
    for features in batches:
        found, wanted = found_of(features), wanted_of(features)
        for x_TF, ours, theirs in zip(features, found, wanted, strict=True):
            if ours.shape != theirs.shape:
                raise ParityError(
                    f"gives {ours.shape} where PyTorch gives {theirs.shape}", item=graph
                )
            errors.append(_largest(ours, theirs))
            differing += _tokens_differing(ours, theirs)
            if len(features) > 1:
                neighbours.append(_largest(ours, found_of([x_TF])[0]))
    return Parity(
        graph=graph,
        cases=sum(len(features) for features in batches),
        max_error=max(errors),
        tokens_differing=differing,
        neighbour_effect=max(neighbours),
    )


def _largest(a: Floats, b: Floats) -> float:
    return float(np.abs(a - b).max(initial=0.0))


def _tokens_differing(ours: Floats, theirs: Floats) -> int:
    if not len(theirs):
        return 0
    ranked = np.sort(theirs, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * TOLERANCE  # a tie has no right answer
    return int(((ours.argmax(axis=1) != theirs.argmax(axis=1)) & clear).sum())
