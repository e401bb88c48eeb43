"""Export: a trained model in, a verified bundle out; fp32 always, fp16 for the GPU where asked."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.bundle import (
    Bundle,
    BundleConfig,
    ChunkGraph,
    EncoderDims,
    NormPrior,
    Training,
    write_bundle,
)
from features.bundle_config import LANGUAGE_MODEL_FILE, LEXICON_FILE, TOKENS_FILE
from features.decode import DecoderConfig
from features.norm import PRIOR_FRAMES, NormStats
from features.spec import FeatureSpec
from features.tokens import TokenTable
from governance.errors import AuricleError
from training.checkpoint import load_model
from training.exporting.graph import export_offline, export_stream
from training.exporting.half import convert_half
from training.exporting.parity import Parity, check_offline, check_stream
from training.model import AcousticModel

FRAME_MS = 40
_OFFLINE = "offline.onnx"


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What a bundle says besides its weights."""

    name: str
    """Registered model name."""
    domain: str
    """What the model was trained for, as shown to people."""
    normaliser: str
    """data.text.NORMALISER_VERSION of the training text."""
    spec: FeatureSpec
    """Front end of the training features."""
    decoder: DecoderConfig
    """Chosen on dev."""
    trained: Training
    """Run, commit, steps."""
    language_model: Path | None = None
    """ARPA file, where the decoder uses one."""
    lexicon: Path | None = None
    """One word per line, where there is a closed vocabulary."""
    chunks_ms: tuple[int, ...] = (640,)
    """One streaming graph each."""
    prior_frames: int = PRIOR_FRAMES
    """Weight of the cold prior."""
    doubt_limit: float | None = None
    """Nats above which nobody spoke (`features.doubt`)."""
    language: str = "en"
    """Language tag."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What export made and how equal it is."""

    bundle_digest: str
    """Of bundle.json, hence of everything."""
    parities: tuple[Parity, ...]
    """One per graph."""
    graph_bytes: Mapping[str, int]
    """Size of each graph."""

    def figures(self) -> dict[str, Any]:
        """For a record."""
        return {
            "bundle_digest": self.bundle_digest,
            "parity": [parity.figures() for parity in self.parities],
            "graph_bytes": dict(self.graph_bytes),
        }


def export_checkpoint(
    checkpoint: Path, out_dir: Path, request: ExportRequest, *, seed: int
) -> ExportReport:
    """Export what training wrote (``model.pt``): its own token table and statistics go with it."""
    model, found = load_model(checkpoint)
    table = TokenTable.from_text(found.facts["tokens"], name=f"{checkpoint}: tokens")
    norm = NormStats.from_json(found.facts["norm"])
    return export_bundle(model, out_dir, request, table=table, norm=norm, seed=seed)


def export_bundle(
    model: AcousticModel,
    out_dir: Path,
    request: ExportRequest,
    *,
    table: TokenTable,
    norm: NormStats,
    seed: int,
) -> ExportReport:
    """Trace, prove equal to PyTorch (refusing otherwise), and write the fp32 bundle.

    ``norm`` are the statistics of the training features: the cold prior.
    """
    model = model.eval().cpu().float()
    chunks = {ms: _chunk(ms, model.config.left_frames) for ms in request.chunks_ms}
    metadata = {
        "feature_fingerprint": request.spec.fingerprint(),
        "token_digest": table.digest,
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        graphs = [work / _OFFLINE]
        export_offline(model, graphs[0], metadata=metadata)
        parities = [check_offline(model, graphs[0], seed=seed)]
        for chunk in chunks.values():
            path = work / chunk.file
            export_stream(model, path, chunk_frames=chunk.chunk_frames, metadata=metadata)
            parities.append(check_stream(model, path, chunk_frames=chunk.chunk_frames, seed=seed))
            graphs.append(path)
        for parity in parities:
            parity.require()
        files = {path.name: path for path in graphs} | _texts(request, table, work)
        sizes = {path.name: path.stat().st_size for path in graphs}
        digest = write_bundle(out_dir, _config(model, request, table, norm, chunks), files)
    return ExportReport(bundle_digest=digest, parities=tuple(parities), graph_bytes=sizes)


def export_half(fp32_dir: Path, out_dir: Path) -> str:
    """The GPU variant: the same bundle with float16 inside its graphs; gives its digest."""
    bundle = Bundle.load(fp32_dir)
    config = bundle.config
    graphs = {config.offline, *(chunk.file for chunk in config.chunks.values())}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: bundle.path(name) for name in bundle.files}
        for name in graphs:
            files[name] = Path(folder) / name
            convert_half(bundle.path(name), files[name])
        return write_bundle(out_dir, replace(config, variant="fp16"), files)


def _chunk(ms: int, left_frames: int) -> ChunkGraph:
    frames, rest = divmod(ms, FRAME_MS)
    if frames < 1 or rest or left_frames % frames:
        raise AuricleError(
            f"a chunk of {ms} ms is not a whole number of {FRAME_MS} ms frames that divides the "
            f"{left_frames} frames of left context",
            item="params.yaml: export.chunk_ms",
            mend=f"choose from {_chunk_choices(left_frames)}",
        )
    return ChunkGraph(file=f"stream-{ms}.onnx", chunk_frames=frames, left_frames=left_frames)


def _chunk_choices(left_frames: int) -> Sequence[int]:
    return [n * FRAME_MS for n in range(4, left_frames + 1) if left_frames % n == 0]


def _texts(request: ExportRequest, table: TokenTable, work: Path) -> dict[str, Path]:
    table.to_file(work / TOKENS_FILE)
    files = {TOKENS_FILE: work / TOKENS_FILE}
    optional = {LANGUAGE_MODEL_FILE: request.language_model, LEXICON_FILE: request.lexicon}
    return files | {name: path for name, path in optional.items() if path is not None}


def _config(
    model: AcousticModel,
    request: ExportRequest,
    table: TokenTable,
    norm: NormStats,
    chunks: Mapping[int, ChunkGraph],
) -> BundleConfig:
    shape = model.config
    return BundleConfig(
        name=request.name,
        variant="fp32",
        feature_spec=request.spec,
        token_digest=table.digest,
        encoder=EncoderDims(
            layers=shape.layers,
            d_model=shape.d_model,
            kernel=shape.kernel,
            left_frames=shape.left_frames,
            heads=shape.heads,
        ),
        chunks=chunks,
        norm=NormPrior(
            mean=tuple(float(value) for value in norm.mean_F),
            std=tuple(float(value) for value in norm.std_F),
            prior_frames=request.prior_frames,
        ),
        decoder=request.decoder,
        domain=request.domain,
        normaliser=request.normaliser,
        trained=request.trained,
        language=request.language,
        frame_ms=FRAME_MS,
        offline=_OFFLINE,
        doubt_limit=request.doubt_limit,
    )
