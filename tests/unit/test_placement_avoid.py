"""Hosts to avoid, what a host would take without its own tasks, and the sentence of a placement that fell short."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.scheduling.filters import would_fit_without
from controlplane.scheduling.model import DEFAULT_STRATEGY, Candidate, Constraint, Demand, Placement, Refusal, Strategy
from controlplane.scheduling.placement import place
from controlplane.scheduling.sentences import closest, services_sentence
from controlplane.state.load import HostLoad
from controlplane.state.presence import Presence
from controlplane.state.records import TaskRecord
from homeport.ids import InstanceId
from homeport.protocol import Condition
from homeport.spec import Resources
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.records import a_task, an_instance

GROUP = "service:web"
PRESENT = Presence(connected=True, since=1.0, last_seen_at=1.0)
UNABLE = "was unable to place a task because no container instance met all of its requirements. "


def a_host(name: str, *tasks: TaskRecord, **members: Any) -> Candidate:
    load = HostLoad()
    for task in tasks:
        load.add(task.resources, 1)
        if task.desired is not DesiredStatus.STOPPED:
            load.add_to_group(task.group, 1)
    return Candidate(an_instance(name, **members), load, PRESENT)


def a_demand(*strategy: Strategy, memory: int = 10, avoid: tuple[str, ...] = (), **members: Any) -> Demand:
    return Demand(
        resources=Resources(memory_mib=memory),
        group=GROUP,
        strategy=strategy or DEFAULT_STRATEGY,
        avoid=frozenset(map(InstanceId, avoid)),
        **members,
    )


def task_on(host: str, name: str = "t", **members: Any) -> TaskRecord:
    defaults: dict[str, Any] = {"group": GROUP, "resources": Resources(memory_mib=10, ports=frozenset({("tcp", 80)}))}
    return a_task(name, instance_id=InstanceId(host), **{**defaults, **members})


# ---------------------------------------------------------------- hosts to avoid


@pytest.mark.parametrize(
    "chain",
    [
        (Strategy("spread", "host"),),
        (Strategy("binpack", "memory"),),
        (Strategy("random"),),
        (Strategy("spread", "zone"), Strategy("binpack", "memory")),
        (Strategy("spread", "zone"), Strategy("random")),
    ],
)
def test_avoided_hosts_come_last_whatever_the_strategy(chain: tuple[Strategy, ...]) -> None:
    hosts = [
        a_host("bad", memory=20, attributes={"zone": "a"}),
        a_host("good", memory=40, attributes={"zone": "b"}),
        a_host("other", memory=30, attributes={"zone": "b"}),
    ]
    placement = place(hosts, a_demand(*chain, avoid=("bad",)), 9, random.Random(1))
    assert set(placement.chosen[:7]) == {"good", "other"}
    assert placement.chosen[7:] == ("bad", "bad")
    assert place(hosts, a_demand(*chain, avoid=("bad",)), 10, random.Random(1)).chosen == placement.chosen


def test_a_spread_counts_the_tasks_of_avoided_hosts() -> None:
    hosts = [
        a_host("bad", *(task_on("bad", str(n)) for n in range(3)), attributes={"zone": "a"}),
        a_host("a", attributes={"zone": "a"}),
        a_host("b", attributes={"zone": "b"}),
    ]
    placement = place(hosts, a_demand(Strategy("spread", "zone"), avoid=("bad",)), 3, random.Random(1))
    assert placement.chosen == ("b", "b", "b")


def test_hosts_that_are_unknown_or_refuse_can_be_avoided() -> None:
    hosts = [a_host("full", memory=5), a_host("good")]
    placement = place(hosts, a_demand(avoid=("full", "gone")), 1, random.Random(1))
    assert placement.chosen == ("good",)
    placement = place(hosts[:1], a_demand(avoid=("full", "gone")), 1, random.Random(1))
    assert [refusal.reason for refusal in placement.refusals] == ["RESOURCE:MEMORY"]


def test_a_host_short_of_memory_comes_last_but_is_no_refusal() -> None:
    short = replace(PRESENT, conditions=(Condition(type="MEMORY", ok=False, since=1.0),))
    hosts = [replace(a_host("a", memory=20), presence=short), a_host("b", memory=20)]
    assert place(hosts, a_demand(), 3, random.Random(1)).chosen == ("b", "b", "a")
    well = replace(hosts[0], presence=replace(PRESENT, conditions=(Condition(type="MEMORY", ok=True, since=1.0),)))
    assert place([well, hosts[1]], a_demand(), 3, random.Random(1)).chosen == ("a", "b", "a")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.sets(st.integers(0, 7)), st.integers(0, 40))
def test_an_avoided_host_is_used_only_when_all_others_are_full(room: list[int], bad: set[int], count: int) -> None:
    hosts = [a_host(f"h{number}", memory=10 * size) for number, size in enumerate(room)]
    avoid = {f"h{number}" for number in bad}
    chosen = place(hosts, a_demand(avoid=tuple(avoid)), count, random.Random(1)).chosen
    assert len(chosen) == min(count, sum(room))
    first = min(count, sum(size for number, size in enumerate(room) if number not in bad))
    assert avoid.isdisjoint(chosen[:first])
    assert avoid.issuperset(chosen[first:])


# ---------------------------------------------------------------- what its own tasks are in the way of


PORT = Resources(memory_mib=10, ports=frozenset({("tcp", 80)}))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, True),
        ({"status": "DRAINING"}, False),
        ({"memory": 5}, False),
        ({"ports": frozenset({("tcp", 80)})}, False),
    ],
)
def test_a_port_that_an_old_task_of_the_service_holds(members: dict[str, Any], expected: bool) -> None:
    old = task_on("h")
    host = a_host("h", old, **members)
    demand = replace(a_demand(), resources=PORT)
    assert would_fit_without(host, demand, [old]) is expected
    assert host.load.ports == {("tcp", 80): 1}


def test_another_services_task_in_the_way_is_not_ours() -> None:
    mine, other = task_on("h", "mine", resources=Resources(memory_mib=1)), task_on("h", "other", group="service:db")
    host = a_host("h", mine, other)
    assert not would_fit_without(host, replace(a_demand(), resources=PORT), [mine])
    assert would_fit_without(host, replace(a_demand(), resources=PORT), [mine, other])


def test_a_host_that_takes_the_task_anyway_refuses_nothing() -> None:
    old = task_on("h", resources=Resources())
    assert not would_fit_without(a_host("h", old), a_demand(), [old])


def test_memory_distinct_instance_and_tasks_elsewhere() -> None:
    old, elsewhere = task_on("h"), task_on("other", "t2")
    distinct = a_demand(constraints=(Constraint("distinctInstance"),))
    assert would_fit_without(a_host("h", old), distinct, [old])
    assert not would_fit_without(a_host("h", old), distinct, [elsewhere])
    assert would_fit_without(a_host("h", old, memory=15), a_demand(), [old])
    stopping = task_on("h", desired=DesiredStatus.STOPPED)
    assert would_fit_without(a_host("h", stopping, memory=15), a_demand(), [stopping])
    gone = task_on("h", status=TaskStatus.STOPPED)
    assert not would_fit_without(a_host("h", old, memory=15), a_demand(), [gone])


# ---------------------------------------------------------------- sentences


def refused(*reasons: tuple[str, int]) -> Placement:
    refusals = tuple(
        Refusal(InstanceId(f"h{number}"), reason, "", short=short) for number, (reason, short) in enumerate(reasons)
    )
    return Placement((), refusals, considered=len(reasons))


@pytest.mark.parametrize(
    ("placement", "sentence"),
    [
        (refused(), "Reason: No Container Instances were found in your cluster."),
        (
            refused(("RESOURCE:MEMORY", 5), ("RESOURCE:MEMORY", 2), ("DRAINING", 0)),
            "The closest matching (container-instance h1) has insufficient memory available. "
            "Of 3 hosts 2 lack memory, 1 is DRAINING.",
        ),
        (
            refused(("RESOURCE:CPU", 1)),
            "The closest matching (container-instance h0) has insufficient CPU units available. "
            "The only host lacks CPU units.",
        ),
        (
            refused(("AGENT", 0), ("RESOURCE:PORTS", 0)),
            "The closest matching (container-instance h1) is already using a port required by your task. "
            "Of 2 hosts 1 has no working agent or Docker Engine, 1 has a host port in use.",
        ),
        (
            refused(("AGENT", 0)),
            'The closest matching (container-instance h0) encountered error "AGENT". '
            "The only host has no working agent or Docker Engine.",
        ),
        (
            refused(("ATTRIBUTE", 0), ("ATTRIBUTE", 0)),
            "The closest matching (container-instance h0) is missing an attribute required by your task. "
            "Of 2 hosts 2 lack a required attribute.",
        ),
        (
            refused(("CAPACITY_PROVIDER", 0)),
            "Reason: No Container Instances were found in your capacity provider. "
            "The only host isn't of the capacity provider.",
        ),
        (
            refused(("SOMETHING", 0)),
            'The closest matching (container-instance h0) encountered error "SOMETHING". '
            "The only host refuses (SOMETHING).",
        ),
    ],
)
def test_the_sentence_of_a_service_event(placement: Placement, sentence: str) -> None:
    assert services_sentence(placement) == UNABLE + sentence


def test_the_closest_host_lacks_least() -> None:
    hosts = [a_host("small", memory=5), a_host("nearly", memory=9), a_host("off", status="DRAINING")]
    nearest = closest(place(hosts, a_demand(), 1, random.Random(1)))
    assert nearest is not None
    assert (nearest.instance_id, nearest.short) == ("nearly", 1)
