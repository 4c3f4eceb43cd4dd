"""What holds of every placement, whatever is asked of whatever hosts: replayed step by step against the filters."""

import random
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from controlplane.scheduling.filters import filters_of, first_refusal
from controlplane.scheduling.model import Candidate, Constraint, Demand, Placement, Strategy
from controlplane.scheduling.placement import place
from controlplane.state.load import HostLoad
from controlplane.state.presence import Presence
from homeport.ids import InstanceId
from homeport.protocol import Condition
from homeport.spec import Protocol, Resources
from tests.fakes.records import an_instance

NAMES = [InstanceId(f"h{number}") for number in range(6)]
GROUPS = ("service:a", "service:b")
PORTS: list[tuple[Protocol, int]] = [("tcp", 80), ("udp", 53)]

hosts = st.builds(
    lambda memory, cpu, gpus, zone, status, connected, reserved: (memory, cpu, gpus, zone, status, connected, reserved),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 2),
    st.sampled_from("abc"),
    st.sampled_from(["ACTIVE", "ACTIVE", "ACTIVE", "DRAINING"]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([frozenset(), frozenset(PORTS[:1])]),
)
resources = st.builds(
    Resources,
    memory_mib=st.integers(0, 3),
    cpu_units=st.integers(0, 3),
    gpus=st.sampled_from([0, 0, 0, 1]),
    ports=st.sampled_from([frozenset(), frozenset(), frozenset(PORTS[:1]), frozenset(PORTS)]),
)
constraints = st.sampled_from(
    [
        (),
        (),
        (Constraint("distinctInstance"),),
        (Constraint("memberOf", "attribute:zone in [a, b]"),),
        (Constraint("memberOf", "not(task:group == service:b)"),),
        (Constraint("memberOf", "attribute:zone == a", "own"), Constraint("distinctInstance")),
        (Constraint("memberOf", "runningTasksCount < 4"),),
    ]
)
chains = st.sampled_from(
    [
        (Strategy("spread", "host"),),
        (Strategy("spread", "zone"),),
        (Strategy("binpack", "memory"),),
        (Strategy("binpack", "cpu"),),
        (Strategy("random"),),
        (Strategy("spread", "zone"), Strategy("binpack", "memory")),
        (Strategy("spread", "zone"), Strategy("spread", "host")),
    ]
)
demands = st.builds(
    Demand,
    resources=resources,
    group=st.sampled_from(GROUPS),
    constraints=constraints,
    strategy=chains,
    attributes=st.sampled_from([{}, {}, {"zone": "a"}]),
    avoid=st.frozensets(st.sampled_from(NAMES), max_size=2),
)


class Cluster(RuleBasedStateMachine):
    """Demands are placed one after another on hosts that fill up; some tasks end."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[InstanceId, Candidate] = {}
        self.placed: list[tuple[InstanceId, Demand]] = []

    @initialize(given=st.lists(hosts, min_size=0, max_size=6))
    def hosts_join(self, given: list[Any]) -> None:
        for name, (memory, cpu, gpus, zone, status, connected, reserved) in zip(NAMES, given, strict=False):
            instance = an_instance(
                name, memory=memory, cpu=cpu, ports=reserved, attributes={"zone": zone}, status=status
            )
            total = replace(instance.facts.resources, gpus=gpus)
            instance = replace(instance, facts=replace(instance.facts, resources=total))
            presence = Presence(connected=connected, since=1.0, last_seen_at=1.0)
            self.hosts[name] = Candidate(instance, HostLoad(), presence)

    @rule(host=st.sampled_from(NAMES), ok=st.booleans())
    def a_host_falls_ill_or_recovers(self, host: InstanceId, ok: bool) -> None:
        candidate = self.hosts.get(host)
        if candidate is not None and candidate.presence is not None:
            ill = replace(candidate.presence, conditions=(Condition(type="DISK", ok=ok, since=1.0),))
            self.hosts[host] = replace(candidate, presence=ill)

    @rule(number=st.integers(0, 50))
    def a_task_ends(self, number: int) -> None:
        if self.placed:
            host, demand = self.placed.pop(number % len(self.placed))
            self._count(host, demand, -1)

    @rule(demand=demands, count=st.integers(0, 6), seed=st.integers(0, 3))
    def tasks_are_placed(self, demand: Demand, count: int, seed: int) -> None:
        placement = place(self.hosts.values(), demand, count, random.Random(seed))
        assert placement == place(self.hosts.values(), demand, count, random.Random(seed))
        assert placement.considered == len(self.hosts)
        assert len(placement.chosen) <= count
        for host in placement.chosen:
            self._check_step(demand, host)
            self._count(host, demand, 1)
            self.placed.append((host, demand))
        self._check_refusals(demand, count, placement)

    def _check_step(self, demand: Demand, host: InstanceId) -> None:
        """Each choice is of an open host, an avoided one only if no other is open, and keeps its attribute even."""
        opened = {
            name for name, candidate in self.hosts.items() if not first_refusal(candidate, demand, filters_of(demand))
        }
        assert host in opened
        better = opened - demand.avoid or opened
        assert host in better
        first = demand.strategy[0]
        if first.by_attribute:
            tasks: Counter[str] = Counter()
            for candidate in self.hosts.values():
                tasks[self._zone(candidate)] += candidate.tasks_of(demand.group)
            assert tasks[self._zone(self.hosts[host])] == min(tasks[self._zone(self.hosts[name])] for name in better)
        elif first.type == "spread":
            assert self.hosts[host].tasks_of(demand.group) == min(self.hosts[n].tasks_of(demand.group) for n in better)
        elif first.type == "binpack":
            assert self._left(host, first.field) == min(self._left(name, first.field) for name in better)

    def _check_refusals(self, demand: Demand, count: int, placement: Placement) -> None:
        if len(placement.chosen) == count:
            assert placement.refusals == ()
            return
        said = {refusal.instance_id: refusal for refusal in placement.refusals}
        assert said == {
            name: first_refusal(candidate, demand, filters_of(demand)) for name, candidate in self.hosts.items()
        }

    @invariant()
    def nothing_is_over_committed(self) -> None:
        for candidate in self.hosts.values():
            total, held = candidate.instance.facts.resources, candidate.load
            assert held.memory_mib <= total.memory_mib
            assert held.cpu_units <= total.cpu_units
            assert held.gpus <= total.gpus
            assert all(count == 1 for count in held.ports.values())
            assert total.ports.isdisjoint(held.ports)

    @invariant()
    def the_groups_are_counted_right(self) -> None:
        for name, candidate in self.hosts.items():
            counts = Counter(demand.group for host, demand in self.placed if host == name)
            assert counts == candidate.load.groups

    def _count(self, host: InstanceId, demand: Demand, sign: int) -> None:
        candidate = self.hosts[host]
        load = candidate.load.copy()
        load.add(demand.resources, sign)
        load.add_to_group(demand.group, sign)
        self.hosts[host] = replace(candidate, load=load)

    def _left(self, host: InstanceId, field: str) -> int:
        total, held = self.hosts[host].instance.facts.resources, self.hosts[host].load
        return total.cpu_units - held.cpu_units if field == "cpu" else total.memory_mib - held.memory_mib

    @staticmethod
    def _zone(candidate: Candidate) -> str:
        return candidate.instance.all_attributes["zone"]


Cluster.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestCluster = Cluster.TestCase
