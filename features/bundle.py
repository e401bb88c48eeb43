"""The model bundle: a folder that holds a model and proves what is in it.

``bundle.json`` carries the configuration and the digest of every file; its own digest names the
bundle in transcripts, in the ledger and in the registry. Nothing here needs torch or onnxruntime.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.bundle_config import (
    BUNDLE_SCHEMA,
    LANGUAGE_MODEL_FILE,
    LEXICON_FILE,
    TOKENS_FILE,
)
from features.bundle_config import BundleConfig as BundleConfig
from features.bundle_config import BundleError as BundleError
from features.bundle_config import ChunkGraph as ChunkGraph
from features.bundle_config import EncoderDims as EncoderDims
from features.bundle_config import NormPrior as NormPrior
from features.bundle_config import Training as Training
from features.language_model import ArpaModel
from features.lexicon import Lexicon
from features.spec import FeatureSpec, FeatureSpecMismatch, require_same
from features.tokens import TokenTable
from governance.canonical import canonical_json, file_digest, write_atomic
from governance.errors import TamperError

BUNDLE_FILE = "bundle.json"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose every byte was checked when it was loaded."""

    folder: Path
    config: BundleConfig
    files: Mapping[str, str]  # name -> digest
    bundle_digest: str  # of bundle.json, and so of everything

    @classmethod
    def load(cls, folder: Path, *, expected_spec: FeatureSpec | None = None) -> "Bundle":
        """Read and verify a bundle: schema, files, digests, fingerprint, and the front end."""
        path = folder / BUNDLE_FILE
        document = _document(path)
        files = _listed(document.pop("files", None), item=str(path))
        fingerprint = document.get("feature_fingerprint")
        config = BundleConfig.from_json(document, item=str(path))
        if fingerprint != config.feature_fingerprint:
            raise FeatureSpecMismatch(
                f"feature_fingerprint is {fingerprint}, but its feature_spec has "
                f"{config.feature_fingerprint}",
                item=str(path),
                mend="export the model again",
            )
        _require(config, files, item=str(path))
        for name, expected in files.items():
            _verify(folder / name, expected)
        _check_tokens(config, folder / TOKENS_FILE, item=str(path))
        if expected_spec is not None:
            require_same(expected_spec, config.feature_spec, item=str(path))
        return cls(folder=folder, config=config, files=files, bundle_digest=file_digest(path))

    def path(self, name: str) -> Path:
        """Where a listed (hence verified) file lies."""
        if name not in self.files:
            raise BundleError(f"the bundle lists no file {name!r}", item=str(self.folder))
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether the bundle lists this file."""
        return name in self.files

    def token_table(self) -> TokenTable:
        """What the model's output axis means."""
        return TokenTable.from_file(self.path(TOKENS_FILE))

    def language_model(self) -> ArpaModel | None:
        """The n-gram model, where the bundle has one."""
        return (
            ArpaModel.load(self.path(LANGUAGE_MODEL_FILE))
            if LANGUAGE_MODEL_FILE in self.files
            else None
        )

    def lexicon(self) -> Lexicon | None:
        """The closed vocabulary, where the bundle has one."""
        return Lexicon.from_file(self.path(LEXICON_FILE)) if LEXICON_FILE in self.files else None


def write_bundle(folder: Path, config: BundleConfig, files: Mapping[str, Path]) -> str:
    """Copy ``files`` (name -> source) into ``folder``, write ``bundle.json``, give its digest.

    A source that already lies at its place is left there. ``bundle.json`` is written last: a
    folder without it is unfinished.
    """
    path = folder / BUNDLE_FILE
    for name in files:
        _check_name(name, item=str(path))
    _require(config, dict.fromkeys(files, ""), item=str(path))
    _check_tokens(config, files[TOKENS_FILE], item=str(path))
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    digests = {}
    for name, source in sorted(files.items()):
        if not source.is_file():
            raise BundleError("file not found", item=str(source), mend=f"export {name} first")
        if source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
        digests[name] = file_digest(folder / name)
    write_atomic(path, canonical_json(config.to_json() | {"files": digests}) + "\n")
    return file_digest(path)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            "not a model bundle, the file is missing",
            item=str(path),
            mend="give the folder that the export, quantize or package stage wrote",
        ) from None
    except ValueError as error:
        raise BundleError(f"not JSON ({error})", item=str(path)) from None
    if not isinstance(document, dict):
        raise BundleError("is not a JSON object", item=str(path))
    if (schema := document.get("bundle_schema")) != BUNDLE_SCHEMA:
        raise BundleError(
            f"bundle_schema is {schema!r}, this version reads {BUNDLE_SCHEMA}",
            item=str(path),
            mend="export the model again, or use the release that wrote it",
        )
    return document


def _listed(files: object, *, item: str) -> dict[str, str]:
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise BundleError("`files` must map names to digests", item=item)
    for name in files:
        _check_name(name, item=item)
    return files


def _check_name(name: str, *, item: str) -> None:
    if not name or name in (".", "..", BUNDLE_FILE) or "/" in name or "\\" in name:
        raise BundleError(f"{name!r} is not a plain file name", item=item)


def _require(config: BundleConfig, files: Mapping[str, str], *, item: str) -> None:
    if missing := sorted(config.required_files() - files.keys()):
        raise BundleError(
            f"the configuration needs {', '.join(missing)}, which the bundle does not list",
            item=item,
            mend="export the model again",
        )


def _check_tokens(config: BundleConfig, tokens: Path, *, item: str) -> None:
    found = TokenTable.from_file(tokens).digest
    if found != config.token_digest:
        raise BundleError(f"token_digest is {config.token_digest}, {tokens} has {found}", item=item)


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError(
            "file of the bundle is missing",
            item=str(path),
            mend="fetch the bundle again (dvc pull, or repeat the export)",
        )
    found = file_digest(path)
    if found != expected:
        raise TamperError(
            f"digest is {found}, bundle.json says {expected}",
            item=str(path),
            mend="fetch the bundle again; never edit a file of a bundle",
        )
