"""The one door to Feast: publish features, join a training frame, read online priors.

The published folder is complete in itself (definitions, configuration, sources, registry, online
store, all by relative path), so it can be moved and pulled like any other output; ``feast -c`` on
it works too. Feast takes eleven seconds to import: every import of it is inside a function.
"""

import importlib.util
import io
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.history import PriorRow, UtteranceRow
from features.priors import DEFAULT_TENANT, PriorKey, write_view
from features.training_rows import TrainingRow
from governance.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from feast import FeatureStore

DEFINITIONS_DIR = Path(__file__).parent / "store"
TRAINING_SERVICE = "asr_training_v1"
SERVING_SERVICE = "asr_serving_priors_v1"
_UTTERANCE_VIEW, _PRIOR_VIEW = "utterance_features", "speaker_priors"
TRAINING_VIEWS = frozenset({_UTTERANCE_VIEW, _PRIOR_VIEW})
SERVING_VIEWS = frozenset({_PRIOR_VIEW})
_CONFIG_FILE = "feature_store.yaml"
_DEFINITIONS_FILE = "definitions.py"
_MEND = "run publish again"
_JOIN_CHUNK_ROWS = 20_000  # entity rows per join, which bounds its memory
_ENTITY_COLUMNS = ("utterance_id", "speaker", "channel", "event_timestamp")


@dataclass(frozen=True, kw_only=True)
class OnlinePrior:
    """A speaker's newest prior as the online store holds it."""

    value: bytes  # as `Prior.to_bytes` writes it
    fingerprint: str  # of the FeatureSpec


@dataclass(frozen=True, kw_only=True)
class PublishReport:
    """What was published."""

    utterances: int
    prior_rows: int
    speakers: int  # with an online prior, counted per kind of channel
    views: tuple[str, ...]
    services: tuple[str, ...]


def publish(
    utterances: Sequence[UtteranceRow],
    priors: Sequence[PriorRow],
    data_dir: Path,
    *,
    repo_dir: Path = DEFINITIONS_DIR,
) -> PublishReport:
    """Write the sources, apply the definitions, bring the newest priors online."""
    if not utterances:
        raise AuricleError("nothing to publish", item=str(data_dir), mend="run featurize first")
    data_dir.mkdir(parents=True, exist_ok=True)
    for name in ("registry.db", "online.db"):
        (data_dir / name).unlink(missing_ok=True)  # a rerun must not keep withdrawn speakers
    _write_source(data_dir / "utterances.parquet", UtteranceRow, utterances)
    _write_source(data_dir / "speaker_priors.parquet", PriorRow, priors)
    apply(repo_dir, data_dir)
    times = [row.event_timestamp for row in utterances] + [row.event_timestamp for row in priors]
    store = _store(data_dir)
    if priors:
        _materialize(store, min(times), max(times))
    return PublishReport(
        utterances=len(utterances),
        prior_rows=len(priors),
        speakers=len({(row.speaker, row.channel) for row in priors}),
        views=tuple(sorted(view.name for view in store.list_feature_views())),
        services=tuple(sorted(service.name for service in store.list_feature_services())),
    )


def apply(repo_dir: Path, data_dir: Path) -> None:
    """Register the entities, views and services that ``repo_dir`` defines."""
    for name in (_CONFIG_FILE, _DEFINITIONS_FILE):
        if not (repo_dir / name).is_file():
            raise ConfigError("not a Feast repository", item=str(repo_dir / name), mend=_MEND)
        shutil.copyfile(repo_dir / name, data_dir / name)
    _store(data_dir).apply(_definitions(data_dir / _DEFINITIONS_FILE))


def services(repo_dir: Path = DEFINITIONS_DIR) -> dict[str, frozenset[str]]:
    """The feature services that are defined, and the views of each."""
    from feast import FeatureService

    return {
        entry.name: frozenset(view.name for view in entry.feature_view_projections)
        for entry in _definitions(repo_dir / _DEFINITIONS_FILE)
        if isinstance(entry, FeatureService)
    }


def training_frame(
    utterances: Sequence[UtteranceRow], service: str, *, data_dir: Path
) -> list[TrainingRow]:
    """Point-in-time features of each utterance, in the order asked and exactly one row for each.

    Feast drops rows whose only features are later, and returns others in an order of its own: its
    answer is joined back by name and counted.
    """
    store = _store(data_dir)
    feature_service = store.get_feature_service(service)
    # A second question without priors, for those that the first answer drops.
    profile = store.get_feature_view(_UTTERANCE_VIEW)
    profile_only = [f"{_UTTERANCE_VIEW}:{field.name}" for field in profile.features]
    rows: list[TrainingRow] = []
    for start in range(0, len(utterances), _JOIN_CHUNK_ROWS):
        chunk = utterances[start : start + _JOIN_CHUNK_ROWS]
        found = _historical(store, feature_service, chunk)
        dropped = [row for row in chunk if row.utterance_id not in found]
        if dropped:
            found |= _historical(store, profile_only, dropped)
        rows += [_training_row(row, found.get(row.utterance_id, {})) for row in chunk]
    return rows


def online_priors(
    speakers: Sequence[tuple[str, str]], service: str = SERVING_SERVICE, *, data_dir: Path
) -> dict[tuple[str, str], OnlinePrior | None]:
    """Newest prior by (speaker, channel) from the online store; None where there is none."""
    asked = list(dict.fromkeys(speakers))
    if not asked:
        return {}
    store = _store(data_dir)
    answer = store.get_online_features(
        features=store.get_feature_service(service),
        entity_rows=[{"speaker": speaker, "channel": channel} for speaker, channel in asked],
    ).to_dict()
    names = ("speaker", "channel", "prior_value", "prior_fingerprint")
    found = {
        (speaker, channel): None
        if value is None
        else OnlinePrior(value=value, fingerprint=fingerprint)
        for speaker, channel, value, fingerprint in zip(*(answer[n] for n in names), strict=True)
    }
    return {key: found[key] for key in asked}


def project_view(
    speakers: Sequence[tuple[str, str]],
    path: Path,
    *,
    data_dir: Path,
    service: str = SERVING_SERVICE,
    tenant: str = DEFAULT_TENANT,
) -> str:
    """Copy these speakers' online priors into the view that serving reads; give its digest."""
    found = online_priors(speakers, service, data_dir=data_dir)
    return write_view(
        path,
        [
            (
                PriorKey(
                    tenant=tenant, speaker=speaker, channel=channel, fingerprint=prior.fingerprint
                ),
                prior.value,
            )
            for (speaker, channel), prior in found.items()
            if prior is not None
        ],
    )


def _store(data_dir: Path) -> "FeatureStore":
    if not (data_dir / _CONFIG_FILE).is_file():
        raise ConfigError("nothing was published here", item=str(data_dir), mend=_MEND)
    from feast import FeatureStore

    return FeatureStore(repo_path=str(data_dir))


def _definitions(path: Path) -> list[Any]:
    """The Feast objects that the file defines, as ``feast apply`` would find them."""
    from feast import Entity, FeatureService, FeatureView

    spec = importlib.util.spec_from_file_location("auricle_feast_definitions", path)
    if spec is None or spec.loader is None:
        raise ConfigError("not a Python file", item=str(path), mend=_MEND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kinds = (Entity, FeatureView, FeatureService)
    return [value for value in vars(module).values() if isinstance(value, kinds)]


def _materialize(store: "FeatureStore", first: datetime, last: datetime) -> None:
    second = timedelta(seconds=1)
    quiet = io.StringIO()  # Feast prints colours and a bar of its own
    with redirect_stdout(quiet), redirect_stderr(quiet):
        store.materialize(start_date=first - second, end_date=last + second)


def _write_source(path: Path, kind: type[Any], rows: Sequence[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bytes: pa.binary(),
        datetime: pa.timestamp("us", tz="UTC"),  # nanoseconds fail in some offline stores
    }
    schema = pa.schema([(field.name, types[field.type]) for field in fields(kind)])  # type: ignore[index]
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(kind)}
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), path, compression="zstd")


def _historical(
    store: "FeatureStore", features: Any, chunk: Sequence[UtteranceRow]
) -> dict[str, dict[str, Any]]:
    """Feast's answer by utterance id; an id that comes twice is an error."""
    import pandas as pd

    entities = pd.DataFrame({name: [getattr(r, name) for r in chunk] for name in _ENTITY_COLUMNS})
    entities["event_timestamp"] = entities["event_timestamp"].astype("datetime64[us, UTC]")
    answer = store.get_historical_features(entity_df=entities, features=features).to_df()
    answer = answer.astype(object).where(answer.notna(), None)
    found = {record["utterance_id"]: record for record in answer.to_dict("records")}
    if len(found) != len(answer) or not found.keys() <= {row.utterance_id for row in chunk}:
        raise AuricleError(
            "the feature store answered with repeated or unknown utterances",
            item="training frame",
            mend=_MEND,
        )
    return found


def _training_row(asked: UtteranceRow, found: Mapping[str, Any]) -> TrainingRow:
    """Take the store's answer by name. Without an earlier prior of this front end: cold."""
    own = {
        field.name: found.get(field.name)
        for field in fields(TrainingRow)
        if not field.name.startswith("prior_")
    }
    if missing := sorted(name for name, value in own.items() if value is None):
        raise AuricleError(
            f"the feature store does not know its {', '.join(missing)}",
            item=asked.utterance_id,
            mend=_MEND,
        )
    warm = found.get("prior_value") is not None and (
        found["prior_fingerprint"] == own["fingerprint"]
    )
    return TrainingRow(
        **own,  # type: ignore[arg-type]
        prior_value=found["prior_value"] if warm else None,
        prior_frames=int(found["prior_frames"]) if warm else 0,
        prior_utterances=int(found["prior_utterances"]) if warm else 0,
    )
