"""The operator's side: wish for a version, wait until every worker serves it or all serve the old."""

import time
from collections.abc import Callable
from pathlib import Path

from features.bundle import Bundle
from governance.errors import AuricleError
from serving.swap.live_folder import LiveFolder, Version, Wanted, WorkerWord

_LOOK_S = 0.05


def ask(
    live: LiveFolder,
    bundle_dir: Path,
    *,
    version: str = "",
    timeout_s: float = 120.0,
    sleep: Callable[[float], None] = time.sleep,
) -> list[WorkerWord]:
    """Every worker's word once all serve the bundle.

    When one of them refuses, or does not answer in time, all go back to what they served before,
    and `AuricleError` tells the reason.
    """
    digest = Bundle.load(bundle_dir).bundle_digest
    version = version or digest.removeprefix("sha256:")[:12]
    with live.turn():
        words = live.words()
        if not words:
            raise AuricleError(
                "no worker of a service is here", item=str(live.folder), mend="`auricle up`"
            )
        before = words[0].serves
        wanted = live.want(
            Version(bundle=str(bundle_dir.absolute()), version=version, digest=digest), before
        )
        answers = _answers(live, wanted, timeout_s, sleep)
        refused = [word for word in answers if word.outcome == "refused"]
        silent = {word.worker for word in live.words()} - {word.worker for word in answers}
        if not refused and not silent and answers:
            return answers
        back = live.want(before, before)
        _answers(live, back, timeout_s, sleep)
    raise _problem(refused, silent, live, timeout_s)


def _answers(
    live: LiveFolder, wanted: Wanted, timeout_s: float, sleep: Callable[[float], None]
) -> list[WorkerWord]:
    """Those that dealt with the wish, when all did, one refused, or the time is over."""
    ends = time.monotonic() + timeout_s
    while True:
        words = live.words()
        answers = [word for word in words if word.answers == wanted.id]
        refused = any(word.outcome == "refused" for word in answers)
        if refused or len(answers) == len(words) or time.monotonic() >= ends:
            return answers
        sleep(_LOOK_S)


def _problem(
    refused: list[WorkerWord], silent: set[str], live: LiveFolder, timeout_s: float
) -> AuricleError:
    if refused:
        word = refused[0]
        return AuricleError(
            f"{word.reason}; every worker serves {word.serves.version} as before",
            item=f"worker {word.worker}",
            mend=word.mend,
        )
    who = ", ".join(sorted(silent)) or "every worker"
    return AuricleError(
        f"no answer of {who} within {timeout_s:.0f} s; the wish was taken back",
        item=str(live.folder),
        mend="read the service's log",
    )
