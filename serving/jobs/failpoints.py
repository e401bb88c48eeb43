"""Places where a proof may kill this process: both sides of every commit, and around a rename.

`arm` names a folder. A file in it that is called like a failpoint is removed and the process ends
with SIGKILL when it passes there: once for each file, so that a restarted process lives on.
Nothing is armed unless the operator's environment says so.
"""

import os
import signal
from pathlib import Path

COMMITS = (
    "accept", "claim", "heartbeat", "release", "finish", "cancel", "erase", "sweep",
    "endpoint", "delivery_claim", "delivery_settle", "redeliver",
)  # fmt: skip
"""Every transaction of the job database, by the name that its writer gives."""
STEPS = ("blob_written", "blob_renamed", "blob_removed", "webhook_sent")
NAMES = (*STEPS, *(f"{side}_{commit}" for commit in COMMITS for side in ("before", "after")))

_armed: list[Path] = []


def arm(folder: Path | None) -> None:
    """Watch this folder; None disarms."""
    _armed[:] = [folder] if folder else []


def failpoint(name: str) -> None:
    """End the process here if a file of this name lies in the armed folder."""
    assert name in NAMES, name
    for folder in _armed:
        token = folder / name
        if token.exists():
            token.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
