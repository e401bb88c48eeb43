"""The service killed at every commit point and at random moments: nothing lost, no two tellings.

    python -m benchmarks.jobs_kill [--no-points] [--random 200] [--groups 5]

Every failpoint once (both sides of every commit), then SIGKILL at random moments under load, then
the whole service under BentoML by its process group. After each part the books are closed: every
request that was answered with 202 is one job, every job is told of under one id, and every delivery
of a message has the same bytes.
"""

import random
import signal
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks._report import Page, holds, parser
from serving.jobs.failpoints import NAMES
from serving.packaging.launch import serve_command
from tests.support_bundle import make_bundle
from tests.support_jobs import (
    Customer,
    Host,
    check_books,
    drained_in_the_middle,
    hosting,
    swept_in_the_middle,
    workload,
)
from tests.support_receiver import Receiver, receiving

_SEED = 20_261
_KILL_WITHIN_S = 2.0  # of being ready ...
_COLD_KILLS = 0.1  # ... or, for this share, of the start: while it warms up


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--no-points", action="store_true", help="without the failpoints")
    options.add_argument("--random", type=int, default=200, help="kills at random moments")
    options.add_argument("--groups", type=int, default=5, help="kills of the service under BentoML")
    given = options.parse_args(argv)
    page = Page(name="jobs_kill", title="Jobs under SIGKILL", arguments=argv)
    with tempfile.TemporaryDirectory(prefix="auricle-jobs-") as name:
        folder = Path(name)
        bundle_dir = make_bundle(folder / "tiny")
        if not given.no_points:
            _part(page, "every failpoint", folder / "points", bundle_dir, _every_failpoint)
            _part(
                page, "the sweep, with a second to live", folder / "sweep", bundle_dir, _every_sweep,
                variables={"AURICLE_JOB_TTL_S": "1"},
            )  # fmt: skip
        if given.random:
            _part(
                page, "random moments", folder / "random", bundle_dir,
                lambda customer, receiver: _at_random(customer, receiver, given.random),
            )  # fmt: skip
        if given.groups:
            _part(
                page, "the service under BentoML, by process group", folder / "bento", bundle_dir,
                lambda customer, receiver: _at_random(customer, receiver, given.groups),
                command=lambda port: serve_command(port=port),
            )  # fmt: skip
    return page.write(given.out)


Part = Callable[[Customer, Receiver], int]


def _part(
    page: Page,
    what: str,
    folder: Path,
    bundle_dir: Path,
    part: Part,
    **host_choices: Any,
) -> None:
    folder.mkdir(parents=True)
    with receiving() as receiver:
        host = Host(folder, bundle_dir, receiver, **host_choices)
        with hosting(host):
            customer = Customer(host)
            customer.register(receiver)
            wrong, kills = "", 0
            try:
                kills = part(customer, receiver)
                check_books(customer, receiver)
            except AssertionError as error:
                wrong = str(error).splitlines()[0]
            jobs, messages = len(customer.promised), len(receiver.got)
            again = Counter(delivery.headers["webhook-id"] for delivery in receiver.got)
            repeated = sum(count > 1 for count in again.values())
            bodies = defaultdict(set)
            for delivery in receiver.got:
                bodies[delivery.headers["webhook-id"]].add(delivery.body)
            differ = sum(len(texts) > 1 for texts in bodies.values())
    page.bars.append(
        holds(
            f"{what}: accepted jobs lost or doubled, bodies that differ",
            "none",
            wrong or f"0 of {jobs} jobs, {differ} of {len(bodies)} messages",
            not wrong and not differ,
        )
    )
    page.notes.append(
        f"{what}: {kills} kills, {jobs} jobs accepted, {messages} deliveries of {len(bodies)} "
        f"messages, {repeated} of them delivered more than once"
    )


def _every_failpoint(customer: Customer, receiver: Receiver) -> int:
    names = [name for name in NAMES if not name.endswith("_sweep")]
    for name in names:
        token, host = customer.host.armed / name, customer.host
        token.touch()
        starts = host.starts
        if name.endswith("_release"):
            drained_in_the_middle(customer, name)
        elif name.endswith("_endpoint"):
            customer.register(receiver)
        workload(customer, receiver, name, long=name.endswith("_heartbeat"))
        assert not token.exists(), f"{name}: the service never passed there"
        assert host.starts == starts + 1, f"{name}: {host.starts - starts} starts, not one"
        check_books(customer, receiver)
        print(f"{name}: killed there, nothing lost", flush=True)
    return len(names)


def _every_sweep(customer: Customer, receiver: Receiver) -> int:
    for name in ("before_sweep", "after_sweep"):
        swept_in_the_middle(customer, receiver, name)
        print(f"{name}: killed there, everything went", flush=True)
    return 2


def _at_random(
    customer: Customer, receiver: Receiver, kills: int, within_s: float = _KILL_WITHIN_S
) -> int:
    """Kill while a customer works; after the last kill the work is let come to its end."""
    rng, killed, over = random.Random(_SEED), 0, threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        number = 0
        try:
            while not over.is_set():
                workload(customer, receiver, f"w{number}")
                number += 1
        except BaseException as error:  # told by the thread that waits
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    seen = 0
    while killed < kills and not failed:
        while customer.host.starts == seen and not failed:
            time.sleep(0.01)
        seen = customer.host.starts
        if rng.random() >= _COLD_KILLS:
            customer.host.wait_ready()
        time.sleep(rng.uniform(0, within_s))
        customer.host.signal(signal.SIGKILL)
        killed += 1
        if killed % 20 == 0:
            print(f"{killed} kills, {len(customer.promised)} jobs", flush=True)
    over.set()
    worker.join()
    if failed:
        raise AssertionError(str(failed[0])) from failed[0]
    return killed


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
