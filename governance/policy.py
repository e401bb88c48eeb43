"""The policy file: the figures that a model must reach, with owner, date and reason of each."""

import operator
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from governance.errors import ConfigError
from governance.yaml_text import parse_yaml

Operator = Literal["<=", "<", ">=", ">", "=="]
Variant = Literal["any", "fp32", "fp16", "int8"]
Threshold = bool | float | str

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}
"""What each operator of a gate means."""


class Gate(BaseModel):
    """One condition on one fact."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    metric: str = Field(min_length=1)  # dotted name of a fact
    op: Operator
    threshold: Threshold
    unit: str
    owner: str = Field(min_length=1)  # who answers for the number
    date: date  # when it was last thought over
    reason: str = Field(min_length=10)  # why this number
    applies_to: Variant = "any"
    required: bool = True  # false: a failure is reported and does not refuse
    missing: Literal["fail", "skip"] = "fail"  # what an absent figure means
    unless: str | None = None  # with skip: the fact whose absence excuses the figure's

    @model_validator(mode="after")
    def _consistent(self) -> "Gate":
        if (self.missing == "skip") != (self.unless is not None):
            raise ValueError("'missing: skip' and 'unless: FACT' go together")
        if isinstance(self.threshold, bool | str) and self.op != "==":
            raise ValueError(f"'{self.op}' needs a number as threshold")
        return self


class Policy(BaseModel):
    """The gates of one alias."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1]
    alias: str = Field(min_length=1)
    gates: tuple[Gate, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _list_to_tuple(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("gates"), list):
            return {**value, "gates": tuple(value["gates"])}
        return value


def load_policy(path: Path) -> Policy:
    """Read and check a policy file; errors name the gate and the field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read ({error})", item=str(path), mend="restore it from git"
        ) from None
    return parse_policy(text, item=str(path))


def parse_policy(text: str, *, item: str = "policy.yaml") -> Policy:
    """Check the text of a policy; ``item`` names it in errors."""
    document = parse_yaml(text, item=item)
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            first["msg"].removeprefix("Value error, "),
            item=f"{item}: {_place(first['loc'], document)}",
            mend="correct the named field",
        ) from None
    names = [gate.name for gate in policy.gates]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"gate '{min(repeated)}' stands twice", item=item, mend="give it another name"
        )
    return policy


def _place(location: tuple[int | str, ...], document: Any) -> str:
    """``gates.wer_file.threshold``: a gate is called by its name, not by its number."""
    parts = [str(part) for part in location]
    if len(location) > 1 and location[0] == "gates":
        try:
            parts[1] = str(document["gates"][location[1]]["name"])
        except (KeyError, IndexError, TypeError):
            parts[1] = f"number {int(location[1]) + 1}"
    return ".".join(parts[:3]) or "document"
