"""What the workers of a service are to serve, and what each of them says that it serves.

``wanted.json`` is replaced as a whole. Every worker has ``worker-<id>.json`` beside it, and holds a
lock on ``worker-<id>.lock`` as long as it lives: the kernel lets go of it whatever ends a worker.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from governance.canonical import write_atomic
from governance.errors import AuricleError

_WANTED, _TURN = "wanted.json", "turn.lock"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A bundle that can be loaded, by place and by content."""

    bundle: str  # absolute folder
    version: str
    digest: str  # empty: whatever lies there


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A wish; it has an id of its own, so that the same version can be wished for twice."""

    id: str
    model: Version
    before: Version  # what was served, in case that a new worker cannot load ``model``


@dataclass(frozen=True, kw_only=True)
class WorkerWord:
    """What a worker says of itself."""

    worker: str
    answers: str  # the wish that it has dealt with; empty: none yet
    outcome: Literal["serving", "refused"]
    serves: Version
    reason: str = ""  # why it refused
    mend: str = ""


class LiveFolder:
    """Both sides' view of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stamp(self) -> tuple[int, int] | None:
        """Changes with every wish; costs one look at the folder."""
        try:
            found = (self.folder / _WANTED).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def wanted(self) -> Wanted | None:
        """The newest wish; a file that is none is told, not guessed at."""
        path = self.folder / _WANTED
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            return Wanted(
                id=str(body["id"]),
                model=Version(**body["model"]),
                before=Version(**body["before"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise AuricleError(
                f"no wish can be read in it ({type(error).__name__})",
                item=str(path),
                mend="`auricle swap` writes it anew",
            ) from None

    def want(self, model: Version, before: Version) -> Wanted:
        """Tell every worker of now and of later."""
        wanted = Wanted(id=secrets.token_hex(8), model=model, before=before)
        write_atomic(self.folder / _WANTED, json.dumps(asdict(wanted), indent=1) + "\n")
        return wanted

    def forget(self) -> None:
        """A service that starts anew serves what it is started with."""
        (self.folder / _WANTED).unlink(missing_ok=True)

    def words(self) -> list[WorkerWord]:
        """Of every worker that lives; what dead ones left is removed."""
        found = []
        for path in sorted(self.folder.glob("worker-*.lock")):
            word = path.with_suffix(".json")
            if _is_held(path):
                if (read := _word(word)) is not None:
                    found.append(read)
            else:
                word.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        return found

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One at a time may wish, until its wish is fulfilled."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _TURN).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise AuricleError(
                    "another swap is under way", item=str(self.folder), mend="wait for its end"
                ) from None
            yield


class Seat:
    """A worker's own place in the folder."""

    def __init__(self, live: LiveFolder) -> None:
        live.folder.mkdir(parents=True, exist_ok=True)
        self.id = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._lock_path = live.folder / f"worker-{self.id}.lock"
        made = live.folder / f".{self.id}"
        self._lock = made.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(self._lock_path)  # held before anybody sees it

    def say(self, word: WorkerWord) -> None:
        """Tell whoever waits."""
        path = self._lock_path.with_suffix(".json")
        write_atomic(path, json.dumps(asdict(word), indent=1) + "\n")

    def leave(self) -> None:
        """The worker ends."""
        self._lock_path.with_suffix(".json").unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)
        self._lock.close()


def _is_held(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _word(path: Path) -> WorkerWord | None:
    """None while a worker that starts has said nothing."""
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return WorkerWord(**{**body, "serves": Version(**body["serves"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
