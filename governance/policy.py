"""The policy file: which figures a model must reach, with owner, date and reason for each number."""

from datetime import date
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.errors import ConfigError

Operator = Literal["<=", ">=", "=="]
Variant = Literal["any", "fp32", "fp16", "int8"]


class Gate(BaseModel):
    """One condition on one fact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    metric: str = Field(min_length=1)  # dotted name of a fact
    op: Operator
    threshold: float
    unit: str
    owner: str = Field(min_length=1)  # who answers for the number
    date: date  # when it was last thought over
    reason: str = Field(min_length=10)  # why this number
    applies_to: Variant = "any"
    missing: Literal["fail", "skip"] = "fail"  # what an absent fact means


class Policy(BaseModel):
    """The gates of one alias."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    alias: str
    gates: tuple[Gate, ...] = Field(min_length=1)


def load_policy(path: Path) -> Policy:
    """Read and check a policy file; errors name the gate and the field."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        policy = Policy.model_validate(document)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"cannot be read ({error})", item=str(path), mend="restore it from git"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{where}: {first['msg']}", item=str(path), mend="mend the named field"
        ) from None
    names = [gate.name for gate in policy.gates]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"gate '{min(repeated)}' appears twice", item=str(path), mend="give it another name"
        )
    return policy
