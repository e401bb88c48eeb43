"""What is left of the error budgets, asked of a Prometheus."""

import http.client
import json
import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from governance.errors import AuricleError
from serving.observe.objectives import Objective, Objectives

_TIMEOUT_S = 30.0
_BURN_WINDOWS = ("1h", "6h", "1d")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One objective's standing; None where nothing happened in the window."""

    name: str
    promise: str
    objective: float
    events: float
    error_ratio: float | None
    left: float | None  # share of the budget; below 0: overspent
    burn: dict[str, float | None]  # window -> times the allowed speed

    @property
    def is_spent(self) -> bool:
        """Whether more errors happened than were allowed."""
        return self.left is not None and self.left < 0


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """The HTTP query interface of one server."""

    url: str

    def value(self, query: str) -> float | None:
        """An expression's single value now; None where it has none."""
        document = self._get(f"/api/v1/query?{urlencode({'query': query})}")
        if document.get("status") != "success":
            raise AuricleError(str(document.get("error", "no reason given")), item=self.url)
        result = document["data"]["result"]
        if not result:
            return None
        value = float(result[0]["value"][1])
        return value if math.isfinite(value) else None

    def _get(self, path: str) -> dict[str, Any]:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", parts.path.rstrip("/") + path)
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AuricleError(
                f"no answer of a Prometheus ({type(error).__name__})",
                item=self.url,
                mend="--prometheus URL",
            ) from None
        finally:
            connection.close()


def budgets(objectives: Objectives, prometheus: Prometheus) -> list[Budget]:
    """Every objective's standing over the window of the file."""
    return [_budget(one, objectives.window, prometheus) for one in objectives.objectives]


def _budget(objective: Objective, window: str, prometheus: Prometheus) -> Budget:
    ratio = prometheus.value(objective.error_ratio(window))
    burn = {}
    for short in _BURN_WINDOWS:
        found = prometheus.value(objective.error_ratio(short))
        burn[short] = None if found is None else round(found / objective.budget, 3)
    return Budget(
        name=objective.name,
        promise=objective.promise,
        objective=objective.objective,
        events=prometheus.value(objective.events(window)) or 0.0,
        error_ratio=ratio,
        left=None if ratio is None else round(1.0 - ratio / objective.budget, 4),
        burn=burn,
    )
