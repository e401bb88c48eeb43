"""Bundles: complete, untouched, and of the expected front end, or refused by name."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.bundle import (
    Bundle,
    BundleConfig,
    BundleError,
    ChunkGraph,
    EncoderDims,
    NormPrior,
    Training,
    write_bundle,
)
from features.decode import DecoderConfig, make_decoder
from features.language_model import train_witten_bell
from features.lexicon import Lexicon
from features.spec import FeatureSpec, FeatureSpecMismatch
from features.tokens import TokenTable
from governance.canonical import canonical_json, file_digest
from governance.errors import AuricleError, TamperError

TABLE = TokenTable.from_alphabet("abc")
SPEC = FeatureSpec()
SENTENCES = ["a cab", "a b c"]


def make_config(**changes: Any) -> BundleConfig:
    config = BundleConfig(
        name="demo",
        variant="fp32",
        feature_spec=SPEC,
        token_digest=TABLE.digest,
        encoder=EncoderDims(layers=2, d_model=16, kernel=5, left_frames=64, heads=2),
        chunks={640: ChunkGraph(file="stream-640.onnx", chunk_frames=16, left_frames=64)},
        norm=NormPrior(mean=(0.5,) * 80, std=(1.0,) * 80, prior_frames=300),
        decoder=DecoderConfig(alpha=0.8, beta=1.0, lexicon=True),
        domain="ordering",
        normaliser="en-1",
        trained=Training(run_id="r1", git_commit="c1", steps=100),
    )
    return replace(config, **changes)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    made = tmp_path / "made"
    made.mkdir()
    TABLE.to_file(made / "tokens.txt")
    Lexicon.from_sentences(SENTENCES).to_file(made / "lexicon.txt")
    (made / "lm.arpa").write_text(train_witten_bell(SENTENCES), encoding="utf-8")
    (made / "offline.onnx").write_bytes(b"weights")
    (made / "stream-640.onnx").write_bytes(b"more weights")
    return {path.name: path for path in made.iterdir()}


@pytest.fixture
def folder(tmp_path: Path, sources: dict[str, Path]) -> Path:
    write_bundle(tmp_path / "bundle", make_config(), sources)
    return tmp_path / "bundle"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "bundle.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(canonical_json(document), encoding="utf-8")


def test_what_was_written_is_loaded(folder: Path) -> None:
    bundle = Bundle.load(folder, expected_spec=SPEC)
    assert bundle.config == make_config()
    assert bundle.path("offline.onnx").read_bytes() == b"weights"
    assert bundle.bundle_digest == file_digest(folder / "bundle.json")
    lm, lexicon = bundle.language_model(), bundle.lexicon()
    assert lm is not None and lexicon is not None
    assert lm.vocabulary == lexicon.words == ("a", "b", "c", "cab")
    decoder = make_decoder(bundle.config.decoder, bundle.token_table(), lm, lexicon)
    assert decoder.finish().text == ""


def test_equal_content_has_equal_bytes(tmp_path: Path, sources: dict[str, Path]) -> None:
    first = write_bundle(tmp_path / "one", make_config(), sources)
    backwards = dict(reversed(sources.items()))
    assert write_bundle(tmp_path / "two", make_config(), backwards) == first


def test_a_bundle_is_written_in_place(folder: Path) -> None:
    files = {name: folder / name for name in Bundle.load(folder).files}
    write_bundle(folder, make_config(variant="int8"), files)
    assert Bundle.load(folder).config.variant == "int8"


def test_language_model_and_lexicon_are_optional(tmp_path: Path, sources: dict[str, Path]) -> None:
    files = {name: sources[name] for name in ("tokens.txt", "offline.onnx", "stream-640.onnx")}
    write_bundle(tmp_path / "plain", make_config(decoder=DecoderConfig(kind="greedy")), files)
    bundle = Bundle.load(tmp_path / "plain")
    assert bundle.language_model() is None and bundle.lexicon() is None
    assert not bundle.has("lm.arpa")


@pytest.mark.parametrize("name", ["offline.onnx", "stream-640.onnx", "tokens.txt", "lm.arpa"])
def test_every_changed_file_is_named(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(TamperError) as caught:
        Bundle.load(folder)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize("name", ["offline.onnx", "lexicon.txt"])
def test_every_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match="missing") as caught:
        Bundle.load(folder)
    assert str(folder / name) in str(caught.value)


def test_another_front_end_is_refused(folder: Path) -> None:
    other = replace(SPEC, low_hz=50.0)
    with pytest.raises(FeatureSpecMismatch, match="low_hz"):
        Bundle.load(folder, expected_spec=other)
    edit(folder, lambda document: document["feature_spec"].update(low_hz=50.0))
    with pytest.raises(FeatureSpecMismatch, match="feature_fingerprint"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d.update(bundle_schema=2), "bundle_schema is 2"),
        (lambda d: d.pop("bundle_schema"), "bundle_schema is None"),
        (lambda d: d.pop("domain"), "missing field 'domain'"),
        (lambda d: d.update(colour="red"), "unknown field 'colour'"),
        (lambda d: d.update(frame_ms="40"), "frame_ms: '40' is not of type int"),
        (lambda d: d.update(frame_ms=20), "frame_ms: must be subsampling"),
        (lambda d: d.update(variant="int4"), "variant: 'int4' is not one of"),
        (lambda d: d["encoder"].pop("heads"), "encoder: missing field 'heads'"),
        (lambda d: d["encoder"].update(layers=True), "encoder: layers: True is not of type int"),
        (lambda d: d["decoder"].update(beam=0), "decoder.beam: must be above 0"),
        (lambda d: d["decoder"].update(kind="best"), "decoder.kind"),
        (lambda d: d["norm"].update(mean=[1.0]), "norm.mean: has 1 numbers for 80"),
        (lambda d: d["norm"].update(std=[0.0] * 80), "norm.std: standard deviations"),
        (lambda d: d["norm"]["mean"].__setitem__(3, "x"), "norm: mean: 'x' is not of type float"),
        (lambda d: d["chunks"].update(fast=d["chunks"]["640"]), "'fast' is not a chunk length"),
        (lambda d: d["chunks"].update({"320": d["chunks"]["640"]}), "chunks.320: must be"),
        (lambda d: d.update(chunks=[]), "chunks: [] is not of type"),
        (lambda d: d.update(feature_spec=3), "feature_spec: is not a JSON object"),
        (lambda d: d["feature_spec"].pop("window"), "feature_spec"),
        (lambda d: d.pop("files"), "`files` must map"),
        (lambda d: d["files"].pop("offline.onnx"), "needs offline.onnx"),
        (lambda d: d["files"].pop("lm.arpa"), "needs lm.arpa"),
        (lambda d: d["files"].update({"../x": "sha256:0"}), "not a plain file name"),
        (lambda d: d.update(token_digest="sha256:0"), "token_digest is sha256:0"),
    ],
)
def test_a_bad_document_is_refused_with_its_field(
    folder: Path, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    edit(folder, change)
    with pytest.raises(AuricleError) as caught:
        Bundle.load(folder)
    assert complaint in str(caught.value)
    assert str(folder / "bundle.json") in str(caught.value)


def test_folders_that_are_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a model bundle"):
        Bundle.load(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        Bundle.load(tmp_path)
    (tmp_path / "bundle.json").write_text("[]")
    with pytest.raises(BundleError, match="not a JSON object"):
        Bundle.load(tmp_path)


def test_an_incomplete_bundle_is_never_written(tmp_path: Path, sources: dict[str, Path]) -> None:
    target = tmp_path / "bundle"
    lacking = {name: path for name, path in sources.items() if name != "lexicon.txt"}
    with pytest.raises(BundleError, match=r"needs lexicon\.txt"):
        write_bundle(target, make_config(), lacking)
    with pytest.raises(BundleError, match="file not found"):
        write_bundle(target, make_config(), sources | {"extra.bin": tmp_path / "none"})
    with pytest.raises(BundleError, match="token_digest"):
        write_bundle(target, make_config(token_digest="sha256:1"), sources)
    with pytest.raises(BundleError, match="plain file name"):
        write_bundle(target, make_config(), sources | {"sub/extra": sources["lm.arpa"]})
    assert not (target / "bundle.json").exists()


def test_a_lean_install_can_load_bundles() -> None:
    heavy = ("torch", "pandas", "pyarrow", "mlflow", "feast", "onnxruntime", "soundfile")
    code = f"import sys, features.bundle; print([m for m in {heavy!r} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [((640,), 640), ((320, 640, 1280), 640), ((320, 1280), 320), ((160, 1280, 2560), 160)],
)
def test_streams_use_640_ms_or_the_nearest(lengths: tuple[int, ...], expected: int) -> None:
    graphs = {
        ms: ChunkGraph(file=f"stream-{ms}.onnx", chunk_frames=ms // 40, left_frames=64)
        for ms in lengths
    }
    assert make_config(chunks=graphs).default_chunk_ms == expected


def test_a_bundle_without_a_streaming_graph_is_refused() -> None:
    with pytest.raises(BundleError, match="chunks: there is no streaming graph"):
        make_config(chunks={})
