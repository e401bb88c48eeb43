"""Object stores: S3 and what speaks its protocol, Google's, Azure's, and folders of this machine.

Addresses are ``s3://bucket/key`` and the like. Credentials, region, endpoint and trust come from where
each store's own tools have them: ``AWS_*``, roles of a machine, ``SSL_CERT_FILE``.
"""

from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import from_url

from data.audio_errors import AudioTooLarge
from governance.errors import AuricleError

SCHEMES = ("s3", "gs", "az", "file")
_BLOCK_BYTES = 4 << 20
_CONNECT_S, _RETRIES = 5, 3


class NoSuchObject(AuricleError):
    """Nothing lies at an address."""


class StoreRefused(AuricleError):
    """The store knows this service's credentials not, or lets them do less."""


class StoreSilent(AuricleError):
    """The store cannot be reached, is not trusted, or failed."""


def fetch_object(address: str, path: Path, *, max_bytes: int, timeout_s: float) -> None:
    """Copy an object into a file; `AudioTooLarge` before anything of a large one is read."""
    parts = urlsplit(address)
    try:
        store = from_url(
            f"{parts.scheme}://{parts.netloc}",
            client_options={
                "connect_timeout": f"{_CONNECT_S}s",
                "timeout": f"{max(1, round(timeout_s))}s",
            },
            retry_config={"max_retries": _RETRIES},
        )
        found = obstore.get(store, parts.path.lstrip("/"))
        if found.meta["size"] > max_bytes:
            raise AudioTooLarge(f"is larger than {max_bytes} bytes", item="object")
        with path.open("wb") as sink:
            for block in found.stream(min_chunk_size=_BLOCK_BYTES):
                sink.write(block)
    except (FileNotFoundError, InvalidPathError):
        raise NoSuchObject("there is no such object") from None
    except (PermissionDeniedError, UnauthenticatedError, PermissionError):
        raise StoreRefused("the object store refused this service's credentials") from None
    except (BaseError, OSError) as error:  # what it says may hold keys and addresses
        raise StoreSilent(f"the object store did not answer ({type(error).__name__})") from None
