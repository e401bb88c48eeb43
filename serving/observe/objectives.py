"""What users may rely on, as numbers: the file ``deploy/observability/slo.yaml`` read and checked."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from governance.errors import ConfigError

Window = str  # as Prometheus writes durations: 5m, 1h, 3d


class _Checked(BaseModel):
    """No unknown field, no change after it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective(_Checked):
    """A share of good events that is promised: of a counter, or of a histogram up to a bound."""

    name: str = Field(pattern=r"[a-z][a-z-]*")
    promise: str
    objective: float = Field(gt=0.0, lt=1.0)
    counter: str = ""
    bad: Mapping[str, str] = {}  # label -> pattern of the counter's bad events
    histogram: str = ""
    within: float = 0.0  # upper edge of a bucket, in the histogram's unit
    labels: Mapping[str, str] = {}  # label -> pattern of the events that count

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Objective":
        counted = bool(self.counter and self.bad and not self.histogram)
        timed = bool(self.histogram and self.within > 0 and not self.counter and not self.bad)
        if counted == timed:
            raise ValueError("needs `counter` and `bad`, or `histogram` and `within`")
        return self

    @property
    def budget(self) -> float:
        """The share of bad events that is allowed."""
        return 1.0 - self.objective

    def error_ratio(self, window: Window) -> str:
        """PromQL: the share of bad events in the window; nothing where nothing happened."""
        if self.counter:
            bad = _rate(self.counter, {**self.labels, **self.bad}, window)
            total = _rate(self.counter, self.labels, window)
            return f"({bad} or vector(0)) / {total}"
        edge = {"le": f"{self.within:g}"}
        good = _rate(f"{self.histogram}_bucket", self.labels, window, exactly=edge)
        return f"1 - {good} / {_rate(f'{self.histogram}_count', self.labels, window)}"

    def events(self, window: Window) -> str:
        """PromQL: how many events there were."""
        name = self.counter or f"{self.histogram}_count"
        return f"sum(increase({name}{_selector(self.labels)}[{window}]))"


class Objectives(_Checked):
    """The whole file."""

    version: Literal[1]
    window_days: int = Field(ge=1, le=90)
    objectives: tuple[Objective, ...] = Field(min_length=1)

    @property
    def window(self) -> Window:
        """Over which the budget is spent."""
        return f"{self.window_days}d"


def read_objectives(document: object, *, item: str) -> Objectives:
    """Check a parsed file; what is wrong is named."""
    try:
        return Objectives.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{place}: {first['msg']}", item=item) from None


def _rate(
    name: str, labels: Mapping[str, str], window: Window, exactly: Mapping[str, str] | None = None
) -> str:
    return f"sum(rate({name}{_selector(labels, exactly)}[{window}]))"


def _selector(labels: Mapping[str, str], exactly: Mapping[str, str] | None = None) -> str:
    parts = [f'{name}=~"{pattern}"' for name, pattern in labels.items()]
    parts += [f'{name}="{value}"' for name, value in (exactly or {}).items()]
    return "{" + ",".join(parts) + "}" if parts else ""
