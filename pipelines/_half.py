"""What float16 costs, measured where it can be: its graphs through the CPU provider.

Rounding is the same on every provider to within the order of sums, so words and log-probabilities
are a fair forecast for a GPU. Speed is none: it is stated as not measured.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.scoring import ScoredUtterance
from features.archive import FeatureArchive
from features.bundle import Bundle
from pipelines._evaluation import items_of, load_decoding
from pipelines._splits import load_split
from pipelines._stage import SEED
from training.engines import Floats, Mode
from training.evaluate import EvalItem, acoustic_pass, compare, decode_all, score_items, summarise
from training.exporting.agreement import agreement
from training.onnx_engine import OnnxEngine


@dataclass(frozen=True, kw_only=True, eq=False)
class _Variant:
    """A bundle with its engine on the CPU."""

    bundle: Bundle
    engine: OnnxEngine

    @classmethod
    def load(cls, folder: Path) -> "_Variant":
        bundle = Bundle.load(folder)
        return cls(bundle=bundle, engine=OnnxEngine(bundle))

    def scored(
        self, items: Sequence[EvalItem], log_probs: Sequence[Floats]
    ) -> list[ScoredUtterance]:
        """Words by the bundle's own decoder."""
        decoding = load_decoding(self.bundle.folder)
        return score_items(items, decode_all(log_probs, self.bundle.config.decoder, decoding))

    @property
    def graph_bytes(self) -> int:
        """Size of all graphs."""
        names = [name for name in self.bundle.files if name.endswith(".onnx")]
        return sum(self.bundle.path(name).stat().st_size for name in names)


def measure_half(fp32_dir: Path, fp16_dir: Path, archive: FeatureArchive) -> dict[str, Any]:
    """fp16 beside fp32: log-probabilities and tokens on dev, words on dev and test."""
    fp32, fp16 = _Variant.load(fp32_dir), _Variant.load(fp16_dir)
    dev, test = (items_of(archive, load_split(split)) for split in ("dev", "test"))
    both, count = [*dev, *test], len(dev)
    full = [acoustic_pass(variant.engine, both, "full") for variant in (fp32, fp16)]
    stream = [acoustic_pass(variant.engine, dev, "stream") for variant in (fp32, fp16)]
    near = {
        "full": agreement(full[0][:count], full[1][:count]),
        "stream": agreement(stream[0], stream[1]),
    }
    before, after = fp32.scored(both, full[0]), fp16.scored(both, full[1])
    streamed = fp16.scored(test, acoustic_pass(fp16.engine, test, "stream"))
    loss = compare(before, after, seed=SEED)
    return {
        "provider": "CPUExecutionProvider",
        "gpu_speed": "not measured",
        "max_abs_diff": max(row.max_abs_diff for row in near.values()),
        "token_agreement": min(row.token_agreement for row in near.values()),
        "agreement": {mode: asdict(row) for mode, row in near.items()},
        "net_words_worse": loss.net_words_worse,
        "net_deletions_worse": loss.deletions_worse,
        "wer_difference": asdict(loss.wer_difference),
        "test_wer": _wer(after[count:], "full"),
        "test_wer_stream": _wer(streamed, "stream"),
        "graph_bytes": fp16.graph_bytes,
        "size_ratio": fp32.graph_bytes / fp16.graph_bytes,
    }


def _wer(scored: Sequence[ScoredUtterance], mode: Mode) -> dict[str, float]:
    found = summarise(scored, engine="onnx fp16", mode=mode, decoder="lm", seed=SEED)
    return asdict(found.wer)
