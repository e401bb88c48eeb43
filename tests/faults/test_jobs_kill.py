"""The service dies at its commit points; no accepted job is lost and no webhook changes.

A representative set of failpoints here; all of them, on both sides, and hundreds of random kills in
``benchmarks/jobs_kill.py``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.jobs.failpoints import COMMITS, NAMES, STEPS, arm, failpoint
from tests.support_bundle import make_bundle
from tests.support_jobs import Customer, Host, check_books, hosting, workload
from tests.support_receiver import Receiver, receiving

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = ("blob_renamed", "after_accept", "before_finish", "webhook_sent")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def customer(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Customer]:
    folder = tmp_path_factory.mktemp("killed")
    bundle_dir = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    with hosting(Host(folder, bundle_dir, receiver)) as host:
        customer = Customer(host)
        customer.register(receiver)
        yield customer


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_service_killed_at_a_commit_point_loses_nothing(
    customer: Customer, receiver: Receiver, name: str
) -> None:
    starts = customer.host.starts
    (customer.host.armed / name).touch()
    workload(customer, receiver, name)
    assert not (customer.host.armed / name).exists(), "the service never passed there"
    assert customer.host.starts == starts + 1, "it was not killed there"
    check_books(customer, receiver)
    body = customer.bodies[f"{name}-1"]
    customer.submit(f"{name}-1")  # once more: the stored answer
    assert customer.bodies[f"{name}-1"] == body


def test_every_commit_and_step_is_in_the_list_of_failpoints() -> None:
    """A new transaction has a name, and the name is one of those that the proof kills at."""
    commits, steps = set(), set()
    for folder in ("serving/jobs", "serving/delivery"):
        for path in (ROOT / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and node.args):
                    continue
                first, func = node.args[0], node.func
                if isinstance(func, ast.Attribute) and func.attr == "write":
                    if isinstance(first, ast.Constant) and isinstance(first.value, str):
                        commits.add(first.value)
                    else:
                        assert "_database" not in ast.unparse(func), ast.unparse(node)
                elif ast.unparse(func) == "failpoint" and isinstance(first, ast.Constant):
                    steps.add(first.value)
    assert commits == set(COMMITS)
    assert steps == set(STEPS)
    assert set(NAMES) == steps | {f"{s}_{c}" for c in commits for s in ("before", "after")}


def test_nothing_is_armed_by_itself(tmp_path: Path) -> None:
    (tmp_path / "before_accept").touch()
    failpoint("before_accept")
    arm(tmp_path)
    try:
        failpoint("after_accept")  # no file of this name
    finally:
        arm(None)
    assert (tmp_path / "before_accept").exists()
