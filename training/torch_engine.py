"""A PyTorch model as an evaluation engine: the reference in all three modes."""

from collections.abc import Sequence
from typing import Any

import torch

from training.engines import Floats, Ints, Mode, StreamState, pad_batch, run_stream
from training.model import AcousticModel


class TorchEngine:
    """Runs a model in eval mode, on the device where it lies."""

    def __init__(self, model: AcousticModel, *, chunk_frames: int = 16) -> None:
        self._model = model.eval()
        self._chunk_frames = chunk_frames

    @property
    def name(self) -> str:
        """What records and reports call it."""
        return "torch"

    @property
    def modes(self) -> tuple[Mode, ...]:
        """All three."""
        return ("full", "masked", "stream")

    def log_probs(self, features: Sequence[Floats], mode: Mode) -> list[Floats]:
        """One [T',V] array per [T,F] array, in order."""
        with torch.inference_mode():
            if mode == "stream":
                state = self._initial(len(features))
                return run_stream(self._step, state, features, self._chunk_frames)
            x_BTF, x_len = (self._tensor(array) for array in pad_batch(features))
            if mode == "full":
                log_probs, out_len = self._model.forward_full(x_BTF, x_len)
            else:
                log_probs, out_len = self._model.forward_masked(x_BTF, x_len, self._chunk_frames)
        arrays = log_probs.float().cpu().numpy()
        return [arrays[row, : int(count)] for row, count in enumerate(out_len)]

    def _tensor(self, array: Any) -> Any:
        return torch.from_numpy(array).to(self._model.head.weight.device)

    def _initial(self, rows: int) -> StreamState:
        attn, conv, processed = (t.cpu().numpy() for t in self._model.initial_caches(rows))
        return attn, conv, processed

    def _step(
        self, x_BTF: Floats, x_len: Ints, state: StreamState
    ) -> tuple[Floats, Ints, StreamState]:
        outputs = self._model.forward_chunk(
            *(self._tensor(array) for array in (x_BTF, x_len, *state))
        )
        log_probs, out_len, attn, conv, processed = (t.cpu().numpy() for t in outputs)
        return log_probs, out_len, (attn, conv, processed)
