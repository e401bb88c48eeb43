"""Admission: fair by cost, never idle beside waiting work, nobody starves, honest about waiting."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.admission.cost import CostModel, Price
from serving.admission.drain import DrainRate
from serving.admission.fair_queue import FairQueue
from serving.admission.limit import AdaptiveLimit, LimitRules
from serving.admission.live import LiveLoad
from serving.admission.policy import (
    AdmissionPolicy,
    Entry,
    NoRoom,
    Outcome,
    Priority,
    Rules,
    State,
)

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH
COSTS = st.floats(min_value=0.01, max_value=5.0)
PATIENT = Rules(max_wait_s=1e9, max_open=10_000)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.tuples(st.sampled_from("abc"), COSTS), min_size=2, max_size=60))
def test_two_waiting_tenants_never_differ_by_more_than_one_largest_item_of_each(
    items: list[tuple[str, float]],
) -> None:
    queue: FairQueue[tuple[str, float]] = FairQueue()
    left: dict[str, int] = {}
    for item in items:
        queue.push(item, tenant=item[0], cost=item[1])
        left[item[0]] = left.get(item[0], 0) + 1
    largest = {name: max(cost for tenant, cost in items if tenant == name) for name in left}
    served = dict.fromkeys(left, 0.0)
    while len(queue):
        tenant, cost = queue.pop()
        served[tenant] += cost
        left[tenant] -= 1
        waiting = [name for name in left if left[name]]
        for one in waiting:
            for other in waiting:
                bound = largest[one] + largest[other]
                assert abs(served[one] - served[other]) <= bound + 1e-9


@given(st.lists(COSTS, min_size=1, max_size=40), COSTS)
def test_a_newcomer_waits_for_no_more_than_one_item_of_a_flood(
    flood: list[float], cost: float
) -> None:
    queue: FairQueue[list[object]] = FairQueue()
    for item in flood:
        queue.push(["flood", item], tenant="flood", cost=item)
    queue.pop()
    queue.push(["light", cost], tenant="light", cost=cost)
    before = []
    while (served := queue.pop())[0] == "flood":
        before.append(served)
    assert len(before) <= 1


@given(st.data())
def test_one_tenants_items_stay_in_order_and_a_removed_one_is_not_charged(
    data: st.DataObject,
) -> None:
    costs = data.draw(st.lists(COSTS, min_size=2, max_size=20))
    queue: FairQueue[list[float]] = FairQueue()
    items = [[cost] for cost in costs]
    for item in items:
        queue.push(item, tenant="a", cost=item[0])
    gone = data.draw(st.integers(0, len(items) - 1))
    queue.remove(items[gone])
    assert [queue.pop() for _ in range(len(queue))] == items[:gone] + items[gone + 1 :]
    assert queue.head() is None


class World:
    """A machine that does one second of work per second on everything that runs, in parallel."""

    def __init__(self, rules: Rules) -> None:
        self.clock = Clock()
        self.policy = AdmissionPolicy(rules, clock=self.clock)
        self.entries: list[Entry] = []

    def of(self, state: State) -> list[Entry]:
        return [entry for entry in self.entries if entry.state is state]

    def knock(self, tenant: str, priority: Priority, cost_s: float) -> None:
        try:
            self.entries.append(self.policy.arrive(tenant, priority, cost_s))
        except NoRoom as refused:
            assert priority is not BATCH and refused.retry_after_s > 0


STEPS = st.one_of(
    st.tuples(
        st.just("knock"), st.sampled_from("abc"), st.sampled_from([INTERACTIVE, BATCH]), COSTS
    ),
    st.tuples(st.sampled_from(["line_up", "finish", "leave"]), st.integers(0, 99)),
    st.tuples(st.just("wait"), st.floats(0.0, 40.0)),
)


@given(st.lists(STEPS, max_size=80))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_work_never_waits_beside_an_idle_machine(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    world = World(Rules(limit=LimitRules(start_s=3.0)))
    for step in steps:
        _take(world, step)
        states = [len(world.of(state)) for state in (State.WAITING, State.RUNNING)]
        assert states == [world.policy.waiting, world.policy.running]
        assert not (world.policy.waiting and not world.policy.running), "idle beside waiting work"
        limit_s = world.policy.limit.seconds
        assert 0.5 <= limit_s <= 120.0
    for entry in world.entries:
        world.policy.finish(entry)
        world.policy.finish(entry)  # again does nothing
    while world.of(State.RUNNING):
        world.policy.finish(world.of(State.RUNNING)[0])
    assert world.policy.waiting == world.policy.running == 0


def _take(world: World, step: tuple) -> None:  # type: ignore[type-arg]
    if step[0] == "knock":
        world.knock(*step[1:])
    elif step[0] == "wait":
        world.clock.now_s += step[1]
    else:
        wanted = State.ARRIVING if step[0] == "line_up" else State.RUNNING
        found = world.entries if step[0] == "leave" else world.of(wanted)
        if not found:
            return
        entry = found[step[1] % len(found)]
        if step[0] == "line_up":
            world.policy.line_up(entry)
        else:
            answered = step[0] == "finish"
            world.policy.finish(entry, Outcome(waited_s=1, worked_s=1) if answered else None)


@given(st.lists(COSTS, min_size=1, max_size=30))
@settings(deadline=None)
def test_batch_work_waits_behind_others_and_still_gets_its_turn(costs: list[float]) -> None:
    world = World(PATIENT)
    for tenant in ("x", "y"):
        world.knock(tenant, INTERACTIVE, 100.0)
        world.policy.line_up(world.entries[-1])
    world.knock("jobs", BATCH, 1.0)
    batch = world.entries[-1]
    world.policy.line_up(batch)
    for cost in costs:  # others come for ever
        world.knock("x", INTERACTIVE, cost)
        world.policy.line_up(world.entries[-1])
    assert batch.state is State.WAITING
    world.policy.finish(world.of(State.RUNNING)[0])
    assert batch.state is State.WAITING, "whoever waits for an answer goes first"
    world.clock.now_s += world.policy.rules.aging_s
    while batch.state is State.WAITING:
        runners = [one for one in world.of(State.RUNNING) if one is not batch]
        assert runners
        world.policy.finish(runners[0])
        assert len(world.of(State.RUNNING)) <= len(costs) + 2
    assert batch.state is State.RUNNING


@given(st.integers(5, 200), COSTS)
@settings(deadline=None)
def test_a_flood_is_refused_with_the_time_of_its_drain_and_a_light_tenant_is_not(
    flood: int, cost: float
) -> None:
    world = World(Rules(max_wait_s=2.0, footprint_s=1e9, max_open=1000))
    refused_s = []
    for _ in range(flood):
        try:
            entry = world.policy.arrive("flood", INTERACTIVE, cost)
        except NoRoom as error:
            refused_s.append(error.retry_after_s)
        else:
            world.entries.append(entry)
            world.policy.line_up(entry)
    let_in_s = cost * len(world.entries)
    assert let_in_s <= world.policy.limit.seconds + 2.0 + cost
    if refused_s:  # come again when one more would be expected to wait no longer than allowed
        assert max(refused_s) == pytest.approx(
            let_in_s + cost - world.policy.limit.seconds - 2.0, abs=1e-6
        )
    assert world.policy.arrive("light", INTERACTIVE, 0.01).state is State.ARRIVING


def test_a_tenant_with_its_share_of_places_is_refused_and_another_is_let_in() -> None:
    world = World(Rules(max_wait_s=1e9, max_open=8))
    for _ in range(8):
        world.knock("flood", INTERACTIVE, 0.001)
    with pytest.raises(NoRoom):
        world.policy.arrive("flood", INTERACTIVE, 0.001)
    assert world.policy.arrive("light", INTERACTIVE, 0.001)
    assert world.policy.arrive("jobs", BATCH, 0.001)


def test_a_slow_upload_holds_nobody_up() -> None:
    world = World(Rules(max_wait_s=1.0, footprint_s=10.0, limit=LimitRules(start_s=1.0)))
    world.knock("slow", INTERACTIVE, 9.0)
    with pytest.raises(NoRoom):
        world.policy.arrive("slow", INTERACTIVE, 9.0)
    world.clock.now_s += world.policy.rules.upload_s + 1.0
    assert world.policy.arrive("slow", INTERACTIVE, 9.0)


@given(
    capacity=st.integers(2, 40),
    work_s=st.floats(0.01, 1.0),
    start=st.floats(0.1, 10.0),
)
@settings(max_examples=25, deadline=None)
def test_the_limit_settles_where_the_queue_is_short_but_never_empty(
    capacity: int, work_s: float, start: float
) -> None:
    """A closed loop: ``n`` under way wait ``n / capacity - 1`` times their own work."""
    limit = AdaptiveLimit(LimitRules(floor_s=work_s, start_s=start * capacity * work_s))
    for _ in range(3000):
        running = max(1, int(limit.seconds / work_s))
        waited_s = max(0.0, running / capacity - 1.0) * work_s
        limit.observe(
            waited_s=waited_s, worked_s=work_s, cost_s=work_s,
            running_s=running * work_s, running=running,
        )  # fmt: skip
    settled = limit.seconds / work_s
    assert 1.9 * capacity <= settled <= 3.1 * capacity + 1


def test_an_unused_limit_does_not_grow() -> None:
    limit = AdaptiveLimit(LimitRules(start_s=10.0))
    for _ in range(100):
        limit.observe(waited_s=0, worked_s=1, cost_s=1, running_s=1.0, running=1)
    assert limit.seconds == 10.0


@given(rate=st.floats(0.1, 16.0), cost=st.floats(0.01, 2.0))
def test_the_drain_rate_is_that_of_busy_time(rate: float, cost: float) -> None:
    drain, now_s = DrainRate(1.0), 0.0
    for _ in range(80):
        now_s += cost / rate
        drain.observe(now_s, cost, busy=True)
    assert drain.per_s == pytest.approx(rate, rel=0.05)
    drain.observe(now_s + 1000.0, cost, busy=False)  # a quiet hour says nothing
    assert drain.per_s == pytest.approx(rate, rel=0.05)


def test_the_cost_of_a_body_is_learnt_for_each_tenant() -> None:
    costs = CostModel(Price(per_request_s=0.01, per_audio_s=0.1))
    assert costs.of_body("new", 320_000) == pytest.approx(1.01)
    for _ in range(200):  # compressed audio, on a machine half as fast as calibrated
        costs.observe("opus", content_length=40_000, audio_s=10.0, work_s=2.02)
    assert costs.of_body("opus", 40_000) == pytest.approx(2.02, rel=0.02)
    assert costs.of_body("opus", None) == pytest.approx(2.02, rel=0.02)


def test_streams_are_let_in_while_all_of_them_keep_up() -> None:
    clock = Clock()
    load = LiveLoad(workers=2, clock=clock)
    load.require_room(0)
    for _ in range(100):
        clock.now_s += 0.1
        load.observe(model_s=0.05, worker_s=0.02)  # half of the model by one stream
    assert load.taken() == pytest.approx(0.5, rel=0.05)
    with pytest.raises(NoRoom):
        load.require_room(1)
    clock.now_s += 11.0
    load.require_room(1)
