"""Greedy word error rate on held-out recordings, as training watches it."""

from collections.abc import Sequence
from typing import Any

import torch

from data.scoring import count_words
from features.greedy import GreedyDecoder
from features.norm import NormStats
from features.tokens import TokenTable
from training.dataset import Archive, Example, clean_batches
from training.model import AcousticModel

Tensor = Any


class DevSet:
    """Held-out recordings, laid out once, scored many times."""

    def __init__(
        self, archive: Archive, examples: Sequence[Example], stats: NormStats, table: TokenTable
    ) -> None:
        self._texts = [example.text for example in examples]
        self._batches = clean_batches(archive, examples, stats) if examples else []
        self._table = table

    def __bool__(self) -> bool:
        return bool(self._batches)

    def word_error_rate(self, model: AcousticModel, chunk_frames: int = 0) -> float:
        """Errors per reference word in 0..; ``chunk_frames`` 0 scores the *full* mode."""
        was_training = model.training
        model.eval()
        errors = words = 0
        for indices, log_probs_BTV, len_B in self._log_probs(model, chunk_frames):
            for row, index in enumerate(indices):
                counts = count_words(
                    self._texts[index], self._greedy(log_probs_BTV[row, : int(len_B[row])])
                )
                errors += counts.errors
                words += counts.ref
        model.train(was_training)
        return errors / max(1, words)

    def _greedy(self, logp_TV: Tensor) -> str:
        decoder = GreedyDecoder(self._table)
        decoder.accept(logp_TV.numpy())
        return decoder.finish().text

    @torch.inference_mode()
    def _log_probs(
        self, model: AcousticModel, chunk_frames: int
    ) -> list[tuple[list[int], Tensor, Tensor]]:
        device = model.head.weight.device
        results = []
        for indices, batch in self._batches:
            x_BTF, len_B = batch.x_BTF.to(device), batch.len_B.to(device)
            if chunk_frames:
                log_probs, len_B = model.forward_masked(x_BTF, len_B, chunk_frames)
            else:
                log_probs, len_B = model.forward_full(x_BTF, len_B)
            results.append((indices, log_probs.float().cpu(), len_B.cpu()))
        return results
