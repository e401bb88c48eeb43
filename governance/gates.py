"""Gates: policy x facts -> verdict. Pure: no file, no clock, no model."""

from collections.abc import Mapping
from dataclasses import dataclass

from governance.policy import Gate, Policy

Fact = float | None


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What one gate said."""

    gate: str
    metric: str
    value: Fact
    op: str
    threshold: float
    unit: str
    outcome: str  # passed, failed, skipped
    why: str


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
    """Apply every gate that concerns ``variant``; a missing fact fails unless the gate skips it."""
    reasons = tuple(
        _apply(gate, facts.get(gate.metric))
        for gate in policy.gates
        if gate.applies_to in ("any", variant)
    )
    passed = bool(reasons) and all(reason.outcome != "failed" for reason in reasons)
    return Verdict(variant=variant, passed=passed, reasons=reasons)


def _apply(gate: Gate, value: Fact) -> Reason:
    if value is None or value != value:  # NaN is no measurement
        outcome = "skipped" if gate.missing == "skip" else "failed"
        why = f"{gate.metric} was not measured"
    else:
        good = {
            "<=": value <= gate.threshold,
            ">=": value >= gate.threshold,
            "==": value == gate.threshold,
        }[gate.op]
        outcome = "passed" if good else "failed"
        sign = gate.op if good else f"not {gate.op}"
        why = f"{value:.4g} {gate.unit} is {sign} {gate.threshold:.4g}: {gate.reason}"
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
