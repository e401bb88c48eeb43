"""Static int8: an fp32 bundle in, an int8 bundle out, and what each layer cost.

The result is a model version of its own with its own gates; where it is not faster on a machine,
the gate refuses it there.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from features.bundle import Bundle, write_bundle
from governance.errors import AuricleError
from training.engines import Floats
from training.quantize_config import QuantizeConfig
from training.quantizing.calibration import offline_feeds, stream_feeds
from training.quantizing.compact import compact
from training.quantizing.graph import Feed, candidates, has_vnni, prepare, quantize_graph
from training.quantizing.ranges import Bound, clip_ranges, fit_bounds
from training.quantizing.sensitivity import LayerHarm, Probe, Progress, rank_layers


@dataclass(frozen=True, kw_only=True)
class QuantizeReport:
    """What quantisation did."""

    bundle_digest: str
    """Of the int8 bundle."""
    int8_layers: tuple[str, ...]
    """Layers that became int8."""
    reverted: tuple[str, ...]
    """Layers that went back to fp32 because they harmed most."""
    harms: tuple[LayerHarm, ...]
    """Every candidate alone, most harmful first, with ranges as measured."""
    bounds: tuple[Bound, ...]
    """Where ranges were narrowed."""
    kl: float
    """Of the finished whole-file graph from fp32, mean per frame."""
    reduce_range: bool
    """Whether weights are 7 bits."""
    bytes_fp32: int
    """All graphs of the fp32 bundle."""
    bytes_int8: int
    """All graphs of the int8 bundle."""

    @property
    def size_ratio(self) -> float:
        """How many times smaller."""
        return self.bytes_fp32 / self.bytes_int8

    def figures(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self) | {"size_ratio": self.size_ratio}


def quantize_bundle(
    fp32_dir: Path,
    out_dir: Path,
    features: Sequence[Floats],
    config: QuantizeConfig,
    *,
    progress: Progress | None = None,
) -> QuantizeReport:
    """Quantise every graph of a bundle; ``features`` are normalised dev recordings."""
    bundle = Bundle.load(fp32_dir)
    if bundle.config.variant != "fp32":
        raise AuricleError(
            f"is {bundle.config.variant}, only fp32 can be quantised",
            item=str(fp32_dir),
            mend="give the bundle that the export stage wrote",
        )
    if not features:
        raise AuricleError(
            "no recording to calibrate on", item="quantize", mend="check the dev split"
        )
    chosen = features[: config.calibration_streams]
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(bundle, Path(folder), chosen, config)
        harms = work.rank(progress)
        work.narrow([harm.layer for harm in harms if harm.kl > config.narrow_above_kl])
        reverted, kl = work.settle([harm.layer for harm in harms])
        files = work.stream_graphs(reverted) | {bundle.config.offline: work.offline_int8}
        for path in files.values():
            _finish(path)
        int8_bytes = sum(path.stat().st_size for path in files.values())
        names = set(bundle.files) - files.keys()
        digest = write_bundle(
            out_dir,
            replace(bundle.config, variant="int8"),
            files | {name: bundle.path(name) for name in names},
        )
    return QuantizeReport(
        bundle_digest=digest,
        int8_layers=tuple(name for name in work.candidates if name not in reverted),
        reverted=reverted,
        harms=tuple(harms),
        bounds=work.bounds,
        kl=kl,
        reduce_range=work.reduce_range,
        bytes_fp32=sum(bundle.path(name).stat().st_size for name in files),
        bytes_int8=int8_bytes,
    )


def _finish(path: Path) -> None:
    model = onnx.load(path)
    compact(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


class _Work:
    """One bundle being quantised: prepared graphs, ranges and the probe."""

    def __init__(
        self, bundle: Bundle, folder: Path, features: Sequence[Floats], config: QuantizeConfig
    ) -> None:
        self._bundle, self._folder, self._config = bundle, folder, config
        self._features = features
        self.reduce_range = not has_vnni() if config.reduce_range is None else config.reduce_range
        offline = bundle.path(bundle.config.offline)
        self._prepared = folder / "prepared.onnx"
        self._ranges = folder / "ranges.json"
        self.bounds: tuple[Bound, ...] = ()
        prepare(offline, self._prepared)
        self.candidates = candidates(onnx.load(self._prepared), depthwise=config.depthwise)
        self._feeds = offline_feeds(features)
        self._probe = Probe(offline, features[: config.probe_recordings])
        self.offline_int8 = folder / "offline-int8.onnx"

    def rank(self, progress: Progress | None) -> list[LayerHarm]:
        """Calibrate once with every layer, then each layer alone."""
        self._quantize_offline(self.candidates)
        return rank_layers(
            self._prepared,
            self.candidates,
            self._feeds,
            self._probe,
            reduce_range=self.reduce_range,
            ranges=self._ranges,
            progress=progress,
        )

    def narrow(self, harmful: Sequence[str]) -> None:
        """Find narrower ranges for the layers that suffer most, and keep them from here on."""
        prepared = onnx.load(self._prepared)
        clipped = self._folder / "clipped.json"

        def trial(bounds: Sequence[Bound]) -> float:
            ranges = clip_ranges(self._ranges, prepared, bounds, clipped)
            target = self._folder / "trial.onnx"
            self._quantize(self._prepared, target, self.candidates, self._feeds, ranges)
            return self._probe.kl(target)

        if harmful:
            self.bounds, _ = fit_bounds(
                harmful, self._ranges, prepared, trial, start=trial(self.bounds)
            )
            self._ranges = clip_ranges(self._ranges, prepared, self.bounds, clipped)

    def settle(self, by_harm: Sequence[str]) -> tuple[tuple[str, ...], float]:
        """Revert the most harmful layers one by one until the whole is close enough to fp32."""
        for count in range(min(self._config.max_reverted, len(by_harm) - 1) + 1):
            reverted = tuple(by_harm[:count])
            self._quantize_offline([name for name in self.candidates if name not in reverted])
            kl = self._probe.kl(self.offline_int8)
            if kl <= self._config.max_kl:
                break
        return reverted, kl

    def stream_graphs(self, reverted: Sequence[str]) -> dict[str, Path]:
        """The same layers of every streaming graph, with ranges from real streams."""
        made = {}
        for chunk in self._bundle.config.chunks.values():
            source = self._bundle.path(chunk.file)
            prepared = self._folder / f"prepared-{chunk.file}"
            prepare(source, prepared)
            feeds = stream_feeds(
                source,
                self._features,
                chunk_frames=chunk.chunk_frames,
                chunks_per_stream=self._config.chunks_per_stream,
            )
            layers = [
                name
                for name in candidates(onnx.load(prepared), depthwise=self._config.depthwise)
                if name not in reverted
            ]
            made[chunk.file] = self._folder / f"int8-{chunk.file}"
            ranges = self._folder / f"ranges-{chunk.file}.json"
            self._quantize(prepared, made[chunk.file], layers, feeds, ranges)
            clip_ranges(ranges, onnx.load(prepared), self.bounds, ranges)
            self._quantize(prepared, made[chunk.file], layers, feeds, ranges)
        return made

    def _quantize_offline(self, layers: Sequence[str]) -> None:
        self._quantize(self._prepared, self.offline_int8, layers, self._feeds, self._ranges)

    def _quantize(
        self,
        prepared: Path,
        target: Path,
        layers: Sequence[str],
        feeds: Sequence[Feed],
        ranges: Path,
    ) -> None:
        quantize_graph(
            prepared,
            target,
            layers,
            feeds,
            reduce_range=self.reduce_range,
            ranges=ranges,
        )
