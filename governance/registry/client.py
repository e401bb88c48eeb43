"""MLflow's client, opened without its noise and its telemetry, and its errors where one is expected."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from governance.errors import AuricleError
from governance.telemetry import disable_vendor_telemetry

_NOISY = ("mlflow", "alembic", "alembic.runtime.migration", "mlflow.store.db.utils")


def open_client(tracking_uri: str) -> Any:
    """MLflow's client on a database, whose schema it makes or brings up to date, silently."""
    disable_vendor_telemetry(os.environ)  # written, not read: MLflow looks there when imported
    _hush()
    try:
        with quiet():
            from mlflow.tracking import MlflowClient

            _hush()  # importing mlflow sets levels of its own
            client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
            client.search_experiments(max_results=1)  # the first touch makes or checks the schema
    except ModuleNotFoundError:
        raise
    except Exception as error:  # SQLAlchemy, Alembic and MLflow each raise their own
        raise AuricleError(
            f"MLflow's store cannot be opened ({type(error).__name__}: {error})",
            item=tracking_uri,
            mend="another MLflow version may have written it: move it aside, then `auricle run`",
        ) from error
    return client


def _hush() -> None:
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow's deprecation warnings are not the user's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def or_none(call: Callable[[], Any], code: str = "RESOURCE_DOES_NOT_EXIST") -> Any:
    """Result of ``call``, or None where MLflow answers ``code``; other failures pass."""
    from mlflow.exceptions import MlflowException

    absent = {code, "INVALID_PARAMETER_VALUE"} if code == "RESOURCE_DOES_NOT_EXIST" else {code}
    try:
        return call()
    except MlflowException as error:
        if error.error_code in absent:
            return None
        raise
