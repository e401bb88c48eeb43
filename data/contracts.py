"""The data contract, judged by Great Expectations: who is let in, who is quarantined, what stops.

The one door to Great Expectations. Importing it takes seconds, so only ``validate`` does.
"""

import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.contract_rules import (
    COLUMNS,
    Cell,
    ContractConfig,
    Rule,
    rules,
    table,
    unaccepted_leaks,
)
from data.manifest import Utterance
from data.sources.item import names_licence
from data.split import SPLITS, Leak, leaks
from governance.errors import AuricleError

_SITE = "contract"
_OWN_PAGES = ("index.html", "static", "expectations", "validations")
_NAMED = 5  # speakers named in a message
_COMMONEST = 3  # rules named in a message
# no values in any result: the pages show how many rows failed a rule, and their ids
_RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "unexpected_index_column_names": ["row", "utterance_id"],
    "exclude_unexpected_values": True,
    "partial_unexpected_count": 0,
}


class ContractError(AuricleError):
    """The data contract could not be judged at all."""


@dataclass(frozen=True, kw_only=True)
class ValidationOutcome:
    """What the contract said about a batch."""

    success: bool
    """False stops the pipeline; quarantined rows alone do not."""
    message: str
    """Why it was stopped, or how many rows were let in."""
    mend: str = ""
    """What to do about the rules that were broken most often; empty if only the pages tell."""
    quarantined: dict[str, list[str]] = field(default_factory=dict)
    """Reasons by utterance id, in plain words with the value at fault."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """Rows, hours, refusals by rule, rows by split: JSON, and no content."""
    docs_dir: Path
    """Data Docs; open ``index.html``."""


def validate(
    utterances: Sequence[Utterance],
    config: ContractConfig,
    docs_dir: Path,
    *,
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC),
) -> ValidationOutcome:
    """Judge every rule on every row and write Data Docs to ``docs_dir``.

    ``at`` is the time shown on the pages; with equal rows and an equal time they say the same.
    """
    rows = list(utterances)
    if not rows:
        return ValidationOutcome(
            success=False, message="there are no utterances to validate", docs_dir=docs_dir
        )
    columns, suite = table(rows, config), rules(config)
    refused = _judge(columns, suite, docs_dir, at)
    leaking = unaccepted_leaks(rows, config)
    stops = [
        _stop_message(rule, columns[rule.column][refused[rule.name][0]], leaking)
        for rule in suite
        if rule.effect == "stop" and rule.name in refused
    ]
    quarantined, mend = _reasons(columns, suite, refused), ""
    share = len(quarantined) / len(rows)
    if share > config.max_quarantined_share:
        stops.append(
            f"{len(quarantined)} of {len(rows)} utterances ({share:.1%}) break a rule, more than "
            f"{config.max_quarantined_share:.1%}; most often: {_most_often(suite, refused)}"
        )
        mend = "; ".join(rule.mend for rule, _ in _commonest(suite, refused) if rule.mend)
    kept = len(rows) - len(quarantined)
    return ValidationOutcome(
        success=not stops,
        message="; ".join(stops) or f"{kept} of {len(rows)} utterances are let in",
        mend=mend,
        quarantined=quarantined,
        statistics=_statistics(rows, quarantined, refused),
        docs_dir=docs_dir,
    )


def _judge(
    columns: Mapping[str, list[Cell]], suite: Sequence[Rule], docs_dir: Path, at: datetime
) -> dict[str, list[int]]:
    """Row numbers by rule that they broke, from one checkpoint run over one batch."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    import great_expectations as gx
    import pandas as pd
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    _add_site(context, docs_dir)
    frame = pd.DataFrame({**columns, "row": range(len(columns["utterance_id"]))})
    batch = (
        context.data_sources.add_pandas("manifest")
        .add_dataframe_asset("utterances")
        .add_batch_definition_whole_dataframe("all")
    )
    expectations = context.suites.add(
        gx.ExpectationSuite(name="utterance contract", expectations=_expectations(suite))
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="utterances", data=batch, suite=expectations)
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="contract",
            validation_definitions=[definition],
            result_format=_RESULT_FORMAT,
        )
    )
    result = checkpoint.run(
        batch_parameters={"dataframe": frame},
        run_id=RunIdentifier(run_name=_SITE, run_time=at),
    )
    context.build_data_docs(site_names=[_SITE])
    (judged,) = result.run_results.values()
    return _refused(judged.results, len(frame))


def _add_site(context: Any, docs_dir: Path) -> None:
    """Pages of an earlier run go first; nothing else in the folder is touched."""
    docs_dir.mkdir(parents=True, exist_ok=True)
    for name in _OWN_PAGES:
        page = docs_dir / name
        if page.is_dir():
            shutil.rmtree(page)
        else:
            page.unlink(missing_ok=True)
    for site in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(
        site_name=_SITE,
        site_config={
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs_dir.resolve()),
            },
        },
    )


def _expectations(suite: Sequence[Rule]) -> list[Any]:
    import great_expectations.expectations as gxe

    made = [gxe.ExpectTableColumnsToMatchSet(column_set=[*COLUMNS, "row"], meta={"rule": ""})]
    for rule in suite:
        common = {"column": rule.column, "meta": {"rule": rule.name}}
        if rule.kind:
            made.append(gxe.ExpectColumnValuesToBeOfType(type_=rule.kind, **common))
        elif rule.present:
            made.append(gxe.ExpectColumnValuesToNotBeNull(**common))
        elif rule.unique:
            made.append(gxe.ExpectColumnValuesToBeUnique(**common))
        elif rule.allowed:
            made.append(gxe.ExpectColumnValuesToBeInSet(value_set=list(rule.allowed), **common))
        else:
            made.append(
                gxe.ExpectColumnValuesToBeBetween(min_value=rule.low, max_value=rule.high, **common)
            )
    return made


def _refused(results: Iterable[Any], count: int) -> dict[str, list[int]]:
    """Rows by broken rule; a rule about a whole column refuses every row."""
    refused: dict[str, list[int]] = {}
    unjudged: list[tuple[str, str, str]] = []
    wrong_types: set[str] = set()
    for result in results:
        if result.success:
            continue
        settings = result.expectation_config
        name, column = settings.meta["rule"], settings.kwargs.get("column", "")
        if raised := _exception(result.exception_info):
            unjudged.append((name, column, raised))
            continue
        if settings.type == "expect_column_values_to_be_of_type":
            wrong_types.add(column)
        # without values the row numbers come as one list per group of rows
        groups = result.result.get("unexpected_index_list") or []
        places = sorted(int(row) for group in groups for row in group["row"])
        refused[name] = places or list(range(count))
    for name, column, raised in unjudged:
        if column not in wrong_types:  # else the type rule has said why
            raise ContractError(
                raised, item=f"rule {name!r}", mend="ingest the corpus again, or report this"
            )
    return refused


def _exception(info: Mapping[str, Any]) -> str:
    """What a rule raised instead of answering; empty if it answered."""
    entries = [info] if "raised_exception" in info else list(info.values())
    said = [str(entry["exception_message"]) for entry in entries if entry["raised_exception"]]
    return said[0] if said else ""


def _stop_message(rule: Rule, value: Cell, leaking: Sequence[Leak]) -> str:
    if rule.column != "speaker_splits":
        return rule.reason(value)
    named = [
        f"{leak.speaker} of {leak.corpus} ({', '.join(leak.splits)})" for leak in leaking[:_NAMED]
    ]
    more = f" and {len(leaking) - _NAMED} more" if len(leaking) > _NAMED else ""
    return (
        f"speakers are heard in more than one split: {', '.join(named)}{more}; give each speaker "
        "one split, or accept it by naming the corpus in speaker_overlap_in"
    )


def _reasons(
    columns: Mapping[str, Sequence[Cell]], suite: Sequence[Rule], refused: Mapping[str, list[int]]
) -> dict[str, list[str]]:
    """Reasons by utterance id, in the order of the manifest, then of the rules."""
    found: dict[int, list[str]] = {}
    for rule in suite:
        for place in refused.get(rule.name, []) if rule.effect == "quarantine" else []:
            found.setdefault(place, []).append(rule.reason(columns[rule.column][place]))
    return {str(columns["utterance_id"][place]): found[place] for place in sorted(found)}


def _most_often(suite: Sequence[Rule], refused: Mapping[str, list[int]]) -> str:
    return ", ".join(f"{rule.name} ({count})" for rule, count in _commonest(suite, refused))


def _commonest(suite: Sequence[Rule], refused: Mapping[str, list[int]]) -> list[tuple[Rule, int]]:
    counted = [(rule, len(refused.get(rule.name, ()))) for rule in suite if rule.effect != "stop"]
    return [pair for pair in sorted(counted, key=lambda pair: -pair[1])[:_COMMONEST] if pair[1]]


def _statistics(
    rows: Sequence[Utterance], quarantined: Mapping[str, list[str]],
    refused: Mapping[str, list[int]],
) -> dict[str, Any]:  # fmt: skip
    kept = [row for row in rows if row.utterance_id not in quarantined]
    return {
        "rows": len(rows),
        "quarantined": len(quarantined),
        "admitted_s": round(math.fsum(_seconds(row) for row in kept), 3),
        "refused_by_rule": {name: len(places) for name, places in sorted(refused.items())},
        "admitted_by_split": {
            split or "unassigned": sum(row.split == split for row in kept)
            for split in (*SPLITS, "")
        },
        "speakers_in_several_splits": len(leaks(rows)),
        "near_repeats": sum(bool(row.duplicate_of) for row in rows),
        "licence_unknown": sum(not names_licence(row.licence) for row in rows),
    }


def _seconds(row: Utterance) -> float:
    return row.duration_s if isinstance(row.duration_s, float) else 0.0
