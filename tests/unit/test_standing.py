"""Rankings kept between placements: whatever happens meanwhile, they choose what a fresh look at all hosts chooses."""

import random
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.scheduling.model import DEFAULT_STRATEGY, Constraint, Demand, Strategy, candidates_of
from controlplane.scheduling.placement import RankedHosts, place
from controlplane.scheduling.standing import MAX_KEPT, StandingRankings
from controlplane.state import hostlog
from controlplane.state.hostlog import HostLog
from controlplane.state.load import HostLoad, LoadBook
from controlplane.state.presence import Presence
from homeport.ids import InstanceId
from homeport.protocol import Condition
from homeport.spec import Resources
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.records import a_context, a_task, an_instance, put

GROUP = "family:web"
HOSTS = [InstanceId(f"h{number}") for number in range(5)]
ZONES = Strategy("spread", "zone")
PACK = Strategy("binpack", "memory")


def a_demand(*strategy: Strategy, **members: Any) -> Demand:
    return Demand(resources=Resources(memory_mib=1), group=GROUP, strategy=strategy or DEFAULT_STRATEGY, **members)


DEMANDS = [
    a_demand(),
    a_demand(PACK),
    a_demand(ZONES),
    a_demand(ZONES, PACK),
    a_demand(constraints=(Constraint("distinctInstance"),)),
    a_demand(constraints=(Constraint("memberOf", "runningTasksCount < 3"),)),
    a_demand(attributes={"zone": "a"}),
]


class Standing(RuleBasedStateMachine):
    """Hosts and tasks come, change and go; tasks are placed, and some placements are not carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.context = a_context()
        self.rankings = StandingRankings()
        self.tasks = 0

    @initialize()
    def hosts_are_there(self) -> None:
        """Without them it takes luck to have two that can be chosen, let alone chosen twice."""
        for number, host in enumerate(HOSTS):
            put(self.context, an_instance(host, memory=6, attributes={"zone": "ab"[number % 2]}))
            self.context.state.presence.put(host, Presence(connected=True, since=1.0, last_seen_at=1.0))

    @rule(host=st.sampled_from(HOSTS), memory=st.integers(0, 6), zone=st.sampled_from("ab"), status=st.integers(0, 5))
    def a_host_comes_or_changes(self, host: InstanceId, memory: int, zone: str, status: int) -> None:
        statuses = {0: "DRAINING", 1: "INACTIVE"}
        put(
            self.context,
            an_instance(host, memory=memory, attributes={"zone": zone}, status=statuses.get(status, "ACTIVE")),
        )

    @rule(
        host=st.sampled_from(HOSTS),
        connected=st.booleans(),
        well=st.booleans(),
        kind=st.sampled_from(["DISK", "MEMORY"]),
    )
    def a_host_is_heard_of(self, host: InstanceId, connected: bool, well: bool, kind: str) -> None:
        conditions = (Condition(type=kind, ok=well, since=1.0),)
        presence = Presence(connected=connected, since=1.0, last_seen_at=1.0, conditions=conditions)
        self.context.state.presence.put(host, presence)

    @rule(host=st.sampled_from(HOSTS))
    def a_host_goes(self, host: InstanceId) -> None:
        self.context.state.presence.forget(host)
        with self.context.state.transaction() as transaction:
            transaction.delete(an_instance(host))

    @rule(
        demand=st.sampled_from(DEMANDS),
        count=st.integers(1, 4),
        avoid=st.frozensets(st.sampled_from(HOSTS), max_size=3),
        carried_out=st.booleans(),
    )
    def tasks_are_placed(self, demand: Demand, count: int, avoid: frozenset[InstanceId], carried_out: bool) -> None:
        state = self.context.state
        demand = replace(demand, avoid=avoid)
        expected = place(candidates_of(state, "default"), demand, count, random.Random(1))
        placement = self.rankings.place(state, "default", demand, count, random.Random(1))
        assert placement.chosen == expected.chosen
        assert placement.considered == expected.considered
        assert sorted(placement.refusals, key=str) == sorted(expected.refusals, key=str)
        for instance_id in placement.chosen if carried_out else ():
            self.tasks += 1
            task = a_task(f"t{self.tasks}", instance_id=instance_id, group=GROUP, resources=demand.resources)
            put(self.context, task)

    @rule(number=st.integers(1, 10), desired=st.booleans())
    def a_task_is_to_stop_or_has_stopped(self, number: int, desired: bool) -> None:
        task = self.context.state.tasks.get(f"t{number}")
        if task is not None:
            status = task.status if desired else TaskStatus.STOPPED
            put(self.context, replace(task, desired=DesiredStatus.STOPPED, status=status))

    @rule()
    def a_transaction_is_undone(self) -> None:
        with pytest.raises(ZeroDivisionError), self.context.state.transaction() as transaction:  # noqa: PT012
            for task in tuple(self.context.state.tasks):
                transaction.delete(task)
            raise ZeroDivisionError

    @invariant()
    def few_are_kept(self) -> None:
        assert len(self.rankings._kept) <= MAX_KEPT


Standing.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestStanding = Standing.TestCase


def test_the_random_strategy_uses_open_hosts_only_and_all_of_them() -> None:
    context = a_context()
    rankings, source = StandingRankings(), random.Random(1)
    present = Presence(connected=True, since=1.0, last_seen_at=1.0)
    for host in HOSTS:
        put(context, an_instance(host))
        context.state.presence.put(host, present)
    demand = a_demand(Strategy("random"))
    assert set(rankings.place(context.state, "default", demand, 100, source).chosen) == set(HOSTS)
    context.state.presence.put(HOSTS[0], replace(present, connected=False))
    assert set(rankings.place(context.state, "default", demand, 100, source).chosen) == set(HOSTS[1:])


class _Watched(LoadBook):
    """Notes whose load is asked for."""

    def __init__(self, log: HostLog) -> None:
        super().__init__(log)
        self.looked_at: list[InstanceId] = []

    def of(self, instance_id: InstanceId) -> HostLoad:
        self.looked_at.append(instance_id)
        return super().of(instance_id)


def test_a_placement_looks_only_at_hosts_that_have_changed() -> None:
    context = a_context()
    rankings = StandingRankings()
    for host in HOSTS:
        put(context, an_instance(host))
        context.state.presence.put(host, Presence(connected=True, since=1.0, last_seen_at=1.0))
    book = context.state.load = _Watched(context.state.host_log)
    for _ in range(3):
        book.looked_at.clear()
        (chosen,) = rankings.place(context.state, "default", a_demand(), 1, random.Random(1)).chosen
    assert book.looked_at == [chosen]  # the host of the placement before, which wasn't carried out
    context.state.presence.put(HOSTS[3], Presence(connected=True, since=1.0, last_seen_at=2.0))
    book.looked_at.clear()
    rankings.place(context.state, "default", a_demand(), 1, random.Random(1))
    assert book.looked_at == [chosen], "a heartbeat is no change"


def _five_hosts() -> Context:
    context = a_context()
    put(context, *(an_instance(host) for host in HOSTS))
    for host in HOSTS:
        context.state.presence.put(host, Presence(connected=True, since=1.0, last_seen_at=1.0))
    return context


class _Anew(RankedHosts):
    """Notes which hosts are ranked anew."""

    dropped: ClassVar[list[InstanceId]] = []

    def drop(self, instance_id: InstanceId) -> None:
        self.dropped.append(instance_id)
        super().drop(instance_id)


def test_hosts_that_got_the_tasks_they_were_chosen_for_are_not_ranked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.scheduling.standing.RankedHosts", _Anew)
    context, rankings, demand = _five_hosts(), StandingRankings(), a_demand()
    chosen = rankings.place(context.state, "default", demand, 4, random.Random(1)).chosen
    resources = demand.resources
    put(context, *(a_task(f"t-{host}", instance_id=host, group=GROUP, resources=resources) for host in chosen))
    _Anew.dropped.clear()
    assert set(rankings.place(context.state, "default", demand, 1, random.Random(1)).chosen) == set(HOSTS) - set(chosen)
    assert _Anew.dropped == [chosen[-1]], "only the last one was out of the ranking"


def test_whom_to_avoid_is_no_reason_to_look_at_all_hosts_again() -> None:
    context = a_context()
    rankings = StandingRankings()
    for host in HOSTS:
        put(context, an_instance(host))
        context.state.presence.put(host, Presence(connected=True, since=1.0, last_seen_at=1.0))
    (first,) = rankings.place(context.state, "default", a_demand(), 1, random.Random(1)).chosen
    book = context.state.load = _Watched(context.state.host_log)
    demand = a_demand(avoid=frozenset(HOSTS[:4]))
    assert rankings.place(context.state, "default", demand, 1, random.Random(1)).chosen == (HOSTS[4],)
    assert book.looked_at == [first]
    assert rankings.place(context.state, "default", a_demand(), 1, random.Random(1)).chosen == (first,)


def test_a_ranking_that_failed_is_not_kept() -> None:
    context = a_context()
    put(context, an_instance(HOSTS[0]))
    context.state.presence.put(HOSTS[0], Presence(connected=True, since=1.0, last_seen_at=1.0))
    rankings = StandingRankings()
    rankings.place(context.state, "default", a_demand(), 1, random.Random(1))
    right, context.state.load = context.state.load, _Broken(context.state.host_log)
    with pytest.raises(ZeroDivisionError):
        rankings.place(context.state, "default", a_demand(), 1, random.Random(1))
    context.state.load = right
    assert rankings.place(context.state, "default", a_demand(), 1, random.Random(1)).chosen == (HOSTS[0],)


class _Broken(LoadBook):
    def of(self, instance_id: InstanceId) -> HostLoad:
        raise ZeroDivisionError(instance_id)


def test_rankings_used_longest_ago_are_dropped() -> None:
    context = a_context()
    put(context, an_instance(HOSTS[0]))
    rankings = StandingRankings()
    for number in range(MAX_KEPT + 5):
        rankings.place(context.state, "default", replace(a_demand(), group=str(number)), 1, random.Random(1))
    assert len(rankings._kept) == MAX_KEPT


def test_a_log_that_has_begun_afresh_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostlog, "_MAX_HOSTS", 2)
    log = HostLog()
    log.note(HOSTS[0])
    log.note(HOSTS[1])
    seen = log.last
    assert log.since(1) == [HOSTS[1]]
    log.note(HOSTS[2])
    assert log.since(1) is None
    assert log.since(seen) == [HOSTS[2]]
