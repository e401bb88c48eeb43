"""Gates: policy x facts -> verdict. Pure: no file, no clock, no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from governance.errors import ConfigError, GateRefused
from governance.policy import COMPARE, Gate, Policy, Threshold
from governance.records import StageRecord

Fact = bool | float | str | None
Outcome = Literal["passed", "failed", "warned", "skipped"]
VARIANTS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What one gate said."""

    gate: str  # its name
    metric: str  # the fact it reads
    value: Fact  # what was measured
    op: str  # how it is compared
    threshold: Threshold  # with what
    unit: str  # of value and threshold
    outcome: Outcome  # warned: not reached, and not required
    why: str  # one sentence for people

    @property
    def passed(self) -> bool:
        """Whether the condition holds."""
        return self.outcome == "passed"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What all gates of a policy said about one variant."""

    variant: str
    passed: bool
    reasons: tuple[Reason, ...]

    @property
    def refusals(self) -> tuple[Reason, ...]:
        """The gates that refused."""
        return tuple(reason for reason in self.reasons if reason.outcome == "failed")


def judge(policy: Policy, facts: Mapping[str, Fact], *, variant: str) -> Verdict:
    """Apply every gate that concerns ``variant``.

    A missing figure fails. A gate with ``missing: skip`` is skipped only where the fact that it
    names in ``unless`` is stated to be None (no champion yet); a fact that nobody stated excuses
    nothing.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"the variant is one of {', '.join(VARIANTS)}", item=variant)
    reasons = tuple(
        _apply(gate, facts) for gate in policy.gates if gate.applies_to in ("any", variant)
    )
    passed = bool(reasons) and all(reason.outcome != "failed" for reason in reasons)
    return Verdict(variant=variant, passed=passed, reasons=reasons)


def require(verdict: Verdict, *, item: str) -> None:
    """Refuse what ``item`` names when the verdict did not pass, with every reason."""
    if not verdict.passed:
        whys = "; ".join(f"{reason.gate}: {reason.why}" for reason in verdict.refusals)
        raise GateRefused(
            f"{len(verdict.refusals)} gates refuse variant {verdict.variant}: "
            f"{whys or 'no gate concerns this variant'}",
            item=item,
            mend="improve the named figures, or have the owner of a gate change the policy",
        )


def collect_facts(records: Mapping[str, StageRecord]) -> dict[str, Fact]:
    """Every scalar figure of every record as a flat fact: ``evaluate.test.stream_lm.wer.point``."""
    facts: dict[str, Fact] = {}
    for stage, record in records.items():
        _flatten(stage, record.figures, facts)
    return facts


def _flatten(name: str, value: Any, facts: dict[str, Fact]) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _flatten(f"{name}.{key}", entry, facts)
    elif value is None or isinstance(value, bool | int | float | str):
        facts[name] = value


def _apply(gate: Gate, facts: Mapping[str, Fact]) -> Reason:
    value = facts.get(gate.metric)
    good, why = _compare(gate, value)
    outcome: Outcome = "passed" if good else ("failed" if gate.required else "warned")
    excused = gate.unless is not None and gate.unless in facts and facts[gate.unless] is None
    if value is None and excused:
        outcome, why = "skipped", f"skipped: there is no {gate.unless}"
    return Reason(
        gate=gate.name,
        metric=gate.metric,
        value=value,
        op=gate.op,
        threshold=gate.threshold,
        unit=gate.unit,
        outcome=outcome,
        why=why,
    )


def _compare(gate: Gate, value: Fact) -> tuple[bool, str]:
    """Whether the condition holds, and the sentence that says so."""
    if value is None:
        return False, f"{gate.metric} was not measured"
    if value != value:  # NaN is no measurement
        return False, f"{gate.metric} is not a number"
    if isinstance(value, str) != isinstance(gate.threshold, str):
        return False, f"{gate.metric} is {value!r}, which {gate.threshold!r} cannot be compared to"
    good = COMPARE[gate.op](value, gate.threshold)
    sign = gate.op if good else f"not {gate.op}"
    sentence = f"{_text(value)} {sign} {_text(gate.threshold)} {gate.unit}".rstrip()
    return good, sentence if good else f"{sentence} ({gate.reason})"


def _text(value: Fact) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
