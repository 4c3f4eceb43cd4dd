"""Dry runs: several demands in turn, rolling deployments, and what a host says to one more task."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.scheduling.explain import answers_of, obstacles, refusals_of
from controlplane.scheduling.filters import filters_of, first_refusal
from controlplane.scheduling.model import DEFAULT_STRATEGY, Candidate, Constraint, Demand
from controlplane.scheduling.planning import Want, place_in_turn, roll
from controlplane.scheduling.sentences import counts_sentence
from controlplane.state.load import HostLoad
from controlplane.state.presence import Presence
from controlplane.state.records import TaskRecord
from homeport.ids import InstanceId
from homeport.protocol import Condition
from homeport.spec import Protocol, Resources
from tests.fakes.records import a_task, an_instance

GROUP = "service:web"
PRESENT = Presence(connected=True, since=1.0, last_seen_at=1.0)


def a_host(name: str, *tasks: TaskRecord, presence: Presence | None = PRESENT, **members: Any) -> Candidate:
    load = HostLoad()
    for task in tasks:
        load.add(task.resources, 1)
        load.add_to_group(task.group, 1)
    return Candidate(an_instance(name, **members), load, presence)


def a_demand(memory: int = 10, *, port: int = 0, **members: Any) -> Demand:
    ports: frozenset[tuple[Protocol, int]] = frozenset({("tcp", port)}) if port else frozenset()
    defaults: dict[str, Any] = {"group": GROUP, "strategy": DEFAULT_STRATEGY}
    return Demand(resources=Resources(memory_mib=memory, ports=ports), **{**defaults, **members})


def old_tasks(demand: Demand, *hosts: str) -> list[TaskRecord]:
    return [
        a_task(f"old{number}", instance_id=InstanceId(host), group=demand.group, resources=demand.resources)
        for number, host in enumerate(hosts)
    ]


def a_roll(hosts: list[Candidate], demand: Demand, wanted: int, old: list[TaskRecord], **bounds: Any) -> Any:
    defaults: dict[str, Any] = {"lower": wanted, "upper": 2 * wanted, "may_stop_first": False}
    return roll(hosts, [Want("", demand, wanted)], old, source=random.Random(1), **{**defaults, **bounds})


# ---------------------------------------------------------------- in turn


def test_each_demand_sees_what_those_before_it_have_taken() -> None:
    hosts = [a_host("a", memory=30), a_host("b", memory=20)]
    wants = [Want("web", a_demand(10), 3), Want("db", a_demand(20, group="service:db"), 1)]
    web, db = place_in_turn(hosts, wants, random.Random(1))
    assert (web.missing, db.missing) == (0, 1)
    assert counts_sentence(db.placement) == "Of 2 hosts 2 lack memory."
    assert hosts[0].load == hosts[1].load == HostLoad()


# ---------------------------------------------------------------- rolling


def test_a_deployment_with_room_rolls_in_one_go() -> None:
    demand = a_demand()
    old = old_tasks(demand, "a", "b")
    plan = a_roll([a_host("a", old[0]), a_host("b", old[1])], demand, 2, old)
    assert sorted(plan.chosen) == ["a", "b"]
    assert (plan.left, plan.rounds, plan.stop_first) == (0, 1, False)


def test_one_without_room_for_both_is_stuck_unless_the_bounds_give_way() -> None:
    demand = a_demand(10)
    old = old_tasks(demand, "a", "b")
    hosts = [a_host("a", old[0], memory=15), a_host("b", old[1], memory=15)]
    stuck = a_roll(hosts, demand, 2, old)
    assert (stuck.chosen, stuck.left) == ((), 2)
    assert counts_sentence(stuck.placement) == "Of 2 hosts 2 lack memory."
    half = a_roll(hosts, demand, 2, old, lower=1)
    assert (sorted(half.chosen), half.left, half.stop_first) == (["a", "b"], 0, False)
    assert half.rounds == 3


def test_host_ports_make_it_stop_first_if_it_may() -> None:
    demand = a_demand(1, port=80)
    old = old_tasks(demand, "a", "b")
    hosts = [a_host("a", old[0]), a_host("b", old[1])]
    plan = a_roll(hosts, demand, 2, old, may_stop_first=True)
    assert (sorted(plan.chosen), plan.left, plan.stop_first) == (["a", "b"], 0, True)
    foreign = [a_host("a", *old_tasks(replace(demand, group="service:other"), "a"))]
    assert a_roll(foreign, demand, 1, [], may_stop_first=True).chosen == ()


def test_each_providers_share_rolls_on_its_own_hosts() -> None:
    own = a_demand(constraints=(Constraint("memberOf", "attribute:rack == a", "own"),))
    old = old_tasks(own, "a", "b")
    hosts = [
        a_host("a", old[0], memory=20, attributes={"rack": "a"}),
        a_host("b", old[1], attributes={"rack": "b"}),
    ]
    wants = [Want("own", own, 1), Want("FARGATE", a_demand(), 2)]
    bounds: dict[str, Any] = {"lower": 2, "upper": 4, "may_stop_first": False, "source": random.Random(1)}
    plan = roll(hosts, wants, old, **bounds)
    assert (plan.chosen[0], plan.left) == ("a", 0)
    assert Counter(plan.chosen) == {"a": 2, "b": 1}
    stuck = roll(hosts, [Want("own", own, 3)], old, **bounds)
    assert Counter(stuck.chosen) == {"a": 2}
    assert counts_sentence(stuck.placement) == "Of 2 hosts 1 isn't of the capacity provider, 1 lacks memory."


def test_scaling_up_and_down_and_old_tasks_on_hosts_that_are_gone() -> None:
    demand = a_demand()
    old = old_tasks(demand, "a", "gone", "a")
    hosts = [a_host("a", old[0], old[2])]
    assert a_roll(hosts, demand, 4, old, lower=3, upper=8).left == 0
    assert a_roll(hosts, demand, 0, old, lower=0).chosen == ()
    assert a_roll(hosts, demand, 0, old, lower=0).left == 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.data(),
    st.integers(0, 8),
    st.integers(0, 100),
    st.integers(100, 200),
    st.booleans(),
)
def test_a_roll_ends_over_commits_nothing_and_is_done_where_there_is_room(
    room: list[int], data: st.DataObject, wanted: int, minimum: int, maximum: int, may_stop_first: bool
) -> None:
    demand = a_demand(10)
    placed = [f"h{n}" for n, size in enumerate(room) for _ in range(data.draw(st.integers(0, size)))]
    old = old_tasks(demand, *placed)
    hosts = [
        a_host(f"h{n}", *(task for task in old if task.instance_id == f"h{n}"), memory=10 * size)
        for n, size in enumerate(room)
    ]
    lower, upper = -(-wanted * minimum // 100), max(wanted, wanted * maximum // 100)
    plan = a_roll(hosts, demand, wanted, old, lower=lower, upper=upper, may_stop_first=may_stop_first)
    counts = Counter(plan.chosen)
    assert all(counts[InstanceId(f"h{n}")] <= size for n, size in enumerate(room))
    assert len(plan.chosen) <= wanted
    if wanted <= sum(room) and (lower < wanted or (may_stop_first and upper > wanted)):
        assert (len(plan.chosen), plan.left) == (wanted, 0)
    assert len(plan.chosen) == wanted or plan.placement.refusals or lower >= upper


# ---------------------------------------------------------------- what a host says


def test_all_obstacles_are_named_with_what_would_help() -> None:
    held = a_task("t", instance_id=InstanceId("h"), group="other", resources=a_demand(200, port=80).resources)
    host = a_host("h", held, memory=300, status="DRAINING", attributes={"zone": "a"})
    demand = replace(
        a_demand(512, port=80, constraints=(Constraint("memberOf", "attribute:zone == b"),)), attributes={"arch": "x"}
    )
    found = {obstacle.reason: obstacle for obstacle in obstacles(host, demand)}
    assert list(found) == [
        "DRAINING",
        "ATTRIBUTE",
        "MemberOf placement constraint unsatisfied.",
        "RESOURCE:MEMORY",
        "RESOURCE:PORTS",
    ]
    assert found["DRAINING"].change == "It would if the host took tasks again: homeport drain h --undo."
    assert found["RESOURCE:MEMORY"].detail == "h has 100 of 300 MiB of memory left; the task needs 512."
    assert found["RESOURCE:MEMORY"].change.startswith("It never will: the host has 300 MiB of memory")
    smaller = obstacles(replace(host, load=held_twice(held)), replace(demand, resources=Resources(memory_mib=150)))
    (memory,) = (obstacle for obstacle in smaller if obstacle.reason == "RESOURCE:MEMORY")
    assert memory.change == "It would if 150 more MiB of memory were free, or the task asked for 0 at most."


def held_twice(task: TaskRecord) -> HostLoad:
    load = HostLoad()
    load.add(task.resources, 1)
    load.add(Resources(memory_mib=100), 1)
    return load


def test_every_port_and_attribute_is_named() -> None:
    ports: frozenset[tuple[Protocol, int]] = frozenset({("tcp", 80), ("tcp", 81), ("udp", 53)})
    host = a_host("h", ports=frozenset({("tcp", 80), ("udp", 53)}))
    demand = replace(a_demand(), resources=Resources(ports=ports), attributes={"a": "1", "b": "2"})
    details = [obstacle.detail for obstacle in obstacles(host, demand)]
    assert details == [
        "h has no attribute a; the task definition requires a=1.",
        "h has no attribute b; the task definition requires b=2.",
        "Port 80/tcp of h is reserved.",
        "Port 53/udp of h is reserved.",
    ]


def test_hosts_that_fit_come_first_then_the_closest() -> None:
    full = Presence(
        connected=True, since=1.0, last_seen_at=1.0, conditions=(Condition(type="DISK", ok=False, since=1),)
    )
    hosts = [
        a_host("far", memory=1, presence=None),
        a_host("less", memory=5),
        a_host("disk", presence=full),
        a_host("near", memory=9),
        a_host("fits"),
    ]
    answers = answers_of(hosts, a_demand())
    assert [answer.candidate.id for answer in answers] == ["fits", "near", "less", "disk", "far"]
    assert [answer.fits for answer in answers] == [True, False, False, False, False]
    sentence = counts_sentence(refusals_of(answers))
    assert sentence == ("Of 5 hosts 2 lack memory, 1 has no working agent or Docker Engine, 1 is short of disk space.")


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 20),
    st.sampled_from(["ACTIVE", "DRAINING"]),
    st.booleans(),
    st.sets(st.sampled_from([("tcp", 1), ("tcp", 2)])),
    st.sampled_from(["a", "b"]),
)
def test_the_first_obstacle_is_the_one_that_placement_names(
    memory: int, status: str, connected: bool, ports: set[Any], zone: str
) -> None:
    host = a_host(
        "h",
        memory=memory,
        status=status,
        ports=frozenset(ports),
        presence=PRESENT if connected else None,
        attributes={"zone": zone},
    )
    demand = a_demand(10, port=1, constraints=(Constraint("memberOf", "attribute:zone == a"),))
    first, found = first_refusal(host, demand, filters_of(demand)), obstacles(host, demand)
    assert [obstacle.detail for obstacle in found[:1]] == ([] if first is None else [first.detail])


@pytest.mark.parametrize("reason", ["DRAINING", "AGENT", "RESOURCE:DISK"])
def test_what_would_help_is_always_said(reason: str) -> None:
    unwell = tuple(Condition(type=kind, ok=False, since=1.0) for kind in ("DISK",))
    hosts = {
        "DRAINING": a_host("h", status="DRAINING"),
        "AGENT": a_host("h", presence=None),
        "RESOURCE:DISK": a_host("h", presence=replace(PRESENT, conditions=unwell)),
    }
    (obstacle,) = obstacles(hosts[reason], a_demand())
    assert obstacle.reason == reason
    assert obstacle.change.startswith("It would if")
