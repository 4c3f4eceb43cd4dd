"""Placing: properties against a naive reference, and the rules of each strategy."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.scheduling.filters import FITNESS, distinct_instance, first_refusal, fits, member_of
from controlplane.scheduling.language import parse_query
from controlplane.scheduling.model import DEFAULT_STRATEGY, Candidate, Constraint, Demand, Placement, Strategy
from controlplane.scheduling.placement import place
from controlplane.state.load import HostLoad
from controlplane.state.presence import Presence
from homeport.protocol import Condition
from homeport.spec import Resources
from tests.fakes.records import an_instance

GROUP = "family:web"
DISTINCT = Constraint("distinctInstance")


def a_candidate(
    name: str, *, tasks: int = 0, others: int = 0, held_cpu: int = 0, held_memory: int = 0, **members: Any
) -> Candidate:
    """A connected host with tasks of GROUP and of other groups on it."""
    load = HostLoad(cpu_units=held_cpu, memory_mib=held_memory, tasks=tasks + others)
    if tasks:
        load.groups[GROUP] = tasks
    if others:
        load.groups["other"] = others
    return Candidate(an_instance(name, **members), load, Presence(connected=True, since=1.0, last_seen_at=1.0))


def a_demand(*strategy: Strategy, cpu: int = 0, memory: int = 0, **members: Any) -> Demand:
    resources = Resources(cpu_units=cpu, memory_mib=memory)
    return Demand(resources=resources, group=GROUP, strategy=strategy or DEFAULT_STRATEGY, **members)


def names(placement: Placement) -> list[str]:
    return [str(name) for name in placement.chosen]


SPREAD = Strategy("spread", "host")
ZONES = Strategy("spread", "zone")
RACKS = Strategy("spread", "rack")
PACK_CPU = Strategy("binpack", "cpu")
PACK_MEMORY = Strategy("binpack", "memory")
RANDOM = Strategy("random")


# ---------------------------------------------------------------- each strategy


def test_spread_by_host_evens_out_the_group() -> None:
    hosts = [a_candidate("a", tasks=2), a_candidate("b"), a_candidate("c", tasks=1)]
    assert names(place(hosts, a_demand(), 6, random.Random(1))) == ["b", "b", "c", "a", "b", "c"]


def test_ties_go_to_the_host_with_the_fewest_tasks_then_by_id() -> None:
    hosts = [a_candidate("a", others=1), a_candidate("c"), a_candidate("b")]
    assert names(place(hosts, a_demand(), 3, random.Random(1))) == ["b", "c", "a"]


def test_spread_by_attribute_evens_out_the_values() -> None:
    hosts = [a_candidate(f"a{n}", attributes={"zone": "a"}) for n in range(3)]
    hosts += [a_candidate("b0", attributes={"zone": "b"})]
    placed = Counter(name[0] for name in names(place(hosts, a_demand(ZONES), 8, random.Random(1))))
    assert placed == {"a": 4, "b": 4}


def test_spread_by_attribute_counts_tasks_on_full_hosts_too() -> None:
    hosts = [
        a_candidate("a-full", tasks=3, memory=10, held_memory=10, attributes={"zone": "a"}),
        a_candidate("a-free", attributes={"zone": "a"}),
        a_candidate("b-free", attributes={"zone": "b"}),
    ]
    chosen = names(place(hosts, a_demand(ZONES, memory=1), 3, random.Random(1)))
    assert chosen == ["b-free", "b-free", "b-free"]


def test_put_attributes_win_over_the_agents_in_a_spread() -> None:
    hosts = [
        a_candidate("h0", attributes={"zone": "a"}),
        a_candidate("h1", attributes={"zone": "a"}),
        a_candidate("h2", attributes={"zone": "b"}),
    ]
    moved = replace(hosts[2], instance=replace(hosts[2].instance, attributes={"zone": "a"}))
    placed = Counter(names(place([*hosts[:2], moved], a_demand(ZONES), 3, random.Random(1))))
    assert placed == {"h0": 1, "h1": 1, "h2": 1}


def test_binpack_fills_the_host_with_the_least_left() -> None:
    hosts = [a_candidate("big", memory=1000), a_candidate("small", memory=300), a_candidate("tiny", memory=50)]
    placement = place(hosts, a_demand(PACK_MEMORY, memory=100), 5, random.Random(1))
    assert names(placement) == ["small", "small", "small", "big", "big"]


def test_spread_over_zones_then_binpack() -> None:
    hosts = [
        a_candidate("a-big", cpu=4000, attributes={"zone": "a"}),
        a_candidate("a-small", cpu=1000, attributes={"zone": "a"}),
        a_candidate("b-big", cpu=4000, attributes={"zone": "b"}),
    ]
    chosen = names(place(hosts, a_demand(ZONES, PACK_CPU, cpu=500), 6, random.Random(1)))
    assert chosen == ["a-small", "b-big", "a-small", "b-big", "b-big", "a-big"]


@pytest.mark.parametrize("chain", [(RANDOM,), (RANDOM, ZONES), (PACK_CPU, RANDOM), (RACKS, RANDOM, SPREAD)])
def test_random_is_fair_and_repeatable_from_a_seed(chain: tuple[Strategy, ...]) -> None:
    hosts = [a_candidate(f"h{n}") for n in range(5)]
    first = names(place(hosts, a_demand(*chain), 1000, random.Random(7)))
    assert first == names(place(hosts, a_demand(*chain), 1000, random.Random(7)))
    # 200 each are expected; five standard deviations are 63.
    assert all(137 <= Counter(first)[f"h{n}"] <= 263 for n in range(5))


# ---------------------------------------------------------------- filters


def test_refusals_are_complete_when_not_everything_fits() -> None:
    hosts = [a_candidate("a", memory=100), a_candidate("b", memory=250)]
    placement = place(hosts, a_demand(memory=100), 9, random.Random(1))
    assert names(placement) == ["a", "b", "b"]
    assert {refusal.instance_id: refusal.detail for refusal in placement.refusals} == {
        "a": "a has 0 of 100 MiB of memory left; the task needs 100.",
        "b": "b has 50 of 250 MiB of memory left; the task needs 100.",
    }
    assert placement.by_reason() == {"RESOURCE:MEMORY": 2}


def test_a_static_port_is_given_once_per_host() -> None:
    hosts = [a_candidate("a"), a_candidate("b")]
    demand = replace(a_demand(), resources=Resources(ports=frozenset({("tcp", 80)})))
    placement = place(hosts, demand, 3, random.Random(1))
    assert sorted(names(placement)) == ["a", "b"]
    assert {refusal.reason for refusal in placement.refusals} == {"RESOURCE:PORTS"}


def test_the_same_port_of_another_protocol_is_free() -> None:
    host = a_candidate("a", ports=frozenset({("udp", 80)}))
    demand = replace(a_demand(), resources=Resources(ports=frozenset({("tcp", 80)})))
    assert names(place([host], demand, 1, random.Random(1))) == ["a"]


def test_distinct_instance_counts_tasks_that_are_there_already() -> None:
    hosts = [a_candidate("a", tasks=1), a_candidate("b", others=1), a_candidate("c")]
    placement = place(hosts, a_demand(constraints=(DISTINCT,)), 5, random.Random(1))
    assert sorted(names(placement)) == ["b", "c"]
    assert len(placement.refusals) == 3


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (a_candidate("h", status="DRAINING"), "DRAINING"),
        (replace(a_candidate("h"), presence=None), "AGENT"),
        (replace(a_candidate("h"), presence=Presence(connected=False, since=1, last_seen_at=1)), "AGENT"),
        (
            replace(
                a_candidate("h"),
                presence=Presence(
                    connected=True,
                    since=1,
                    last_seen_at=1,
                    conditions=(Condition(type="CONTAINER_RUNTIME", ok=False, since=1),),
                ),
            ),
            "AGENT",
        ),
        (
            replace(
                a_candidate("h"),
                presence=Presence(
                    connected=True, since=1, last_seen_at=1, conditions=(Condition(type="DISK", ok=False, since=1),)
                ),
            ),
            "RESOURCE:DISK",
        ),
        (a_candidate("h", attributes={"arch": "arm64"}), "ATTRIBUTE"),
        (a_candidate("h", attributes={}), "ATTRIBUTE"),
        (a_candidate("h", attributes={"arch": "x86"}, cpu=9), "RESOURCE:CPU"),
        (a_candidate("h", attributes={"arch": "x86"}, memory=9), "RESOURCE:MEMORY"),
        (a_candidate("h", attributes={"arch": "x86"}), None),
    ],
)
def test_fitness(candidate: Candidate, reason: str | None) -> None:
    refusal = first_refusal(candidate, a_demand(cpu=10, memory=10, attributes={"arch": "x86"}), FITNESS)
    assert (refusal and refusal.reason) == reason
    assert fits(candidate, a_demand(cpu=10, memory=10, attributes={"arch": "x86"})) is (reason is None)
    assert refusal is None or ("h " in refusal.detail or " h" in refusal.detail)


def test_more_than_the_host_has_left_is_never_reported_as_negative() -> None:
    refusal = first_refusal(a_candidate("h", memory=10, held_memory=20), a_demand(memory=1), FITNESS)
    assert refusal is not None
    assert refusal.detail == "h has 0 of 10 MiB of memory left; the task needs 1."


def test_placing_leaves_the_books_alone() -> None:
    host = a_candidate("a", tasks=1)
    before = host.load.copy()
    place([host], a_demand(cpu=1, memory=1), 3, random.Random(1))
    assert host.load == before


# ---------------------------------------------------------------- against a naive reference


def naive(candidates: list[Candidate], demand: Demand, count: int) -> list[str]:
    """The definition: for each task, filter all hosts, then narrow them strategy by strategy."""
    filters = [*FITNESS]
    for constraint in demand.constraints:
        filters.append(
            distinct_instance
            if constraint.type == "distinctInstance"
            else member_of(parse_query(constraint.expression))
        )
    hosts = {candidate.id: replace(candidate, load=candidate.load.copy()) for candidate in candidates}
    chosen = []
    for _ in range(count):
        fitting = {h.id for h in hosts.values() if first_refusal(h, demand, filters) is None}
        # Narrow all hosts, those that don't fit included: a spread counts their tasks.
        branch = list(hosts.values())
        for strategy in demand.strategy:
            branch = _narrowed(branch, strategy, fitting, demand)
        open_hosts = [h for h in branch if h.id in fitting]
        if not open_hosts:
            break
        best = min(open_hosts, key=lambda h: (h.load.tasks, h.id))
        best.load.add(demand.resources, 1)
        best.load.add_to_group(demand.group, 1)
        chosen.append(str(best.id))
    return chosen


def _narrowed(branch: list[Candidate], strategy: Strategy, fitting: set[Any], demand: Demand) -> list[Candidate]:
    def value(host: Candidate) -> Any:
        if strategy.by_attribute:
            return host.instance.all_attributes.get(strategy.field, "")
        if strategy.type == "spread":
            return host.tasks_of(demand.group)
        resources = host.instance.facts.resources
        if strategy.field == "cpu":
            return resources.cpu_units - host.load.cpu_units
        return resources.memory_mib - host.load.memory_mib

    parts: dict[Any, list[Candidate]] = {}
    for host in branch:
        parts.setdefault(value(host), []).append(host)
    usable = {v: hosts for v, hosts in parts.items() if any(host.id in fitting for host in hosts)}
    if not usable:
        return []
    if not strategy.by_attribute:
        return usable[min(usable)]
    counts = {v: sum(host.tasks_of(demand.group) for host in hosts) for v, hosts in usable.items()}
    least = min(counts.values())
    # Several values can tie: the rest of the chain decides among all of their hosts.
    return [host for v, hosts in usable.items() if counts[v] == least for host in hosts]


amounts = st.integers(0, 4)


@st.composite
def hosts(draw: st.DrawFn) -> list[Candidate]:
    found = []
    for number in range(draw(st.integers(1, 7))):
        attributes = {}
        if draw(st.booleans()) or number == 0:
            attributes["zone"] = draw(st.sampled_from("ab"))
        attributes["rack"] = draw(st.sampled_from("xy"))
        found.append(
            a_candidate(
                f"h{number}",
                tasks=draw(amounts),
                others=draw(amounts),
                cpu=draw(st.integers(0, 12)),
                memory=draw(st.integers(0, 12)),
                held_cpu=draw(amounts),
                held_memory=draw(amounts),
                attributes=attributes,
            )
        )
    return found


def demands(*chains: tuple[Strategy, ...]) -> st.SearchStrategy[Demand]:
    constraints = st.sampled_from(
        [
            (),
            (DISTINCT,),
            (Constraint("memberOf", "attribute:rack == x"),),
            (Constraint("memberOf", "task:group == other"),),
        ]
    )
    return st.builds(
        lambda chain, cpu, memory, found: a_demand(*chain, cpu=cpu, memory=memory, constraints=found),
        st.sampled_from(chains),
        amounts,
        amounts,
        constraints,
    )


@settings(max_examples=300, deadline=None)
@given(
    hosts(),
    demands((SPREAD,), (PACK_CPU,), (PACK_MEMORY, SPREAD), (ZONES,), (ZONES, SPREAD), (ZONES, PACK_CPU, SPREAD)),
    st.integers(0, 20),
)
def test_it_chooses_what_the_definition_chooses(candidates: list[Candidate], demand: Demand, count: int) -> None:
    assert names(place(candidates, demand, count, random.Random(1))) == naive(candidates, demand, count)


@settings(max_examples=200, deadline=None)
@given(
    hosts(),
    st.builds(
        Resources, cpu_units=amounts, memory_mib=amounts, ports=st.sets(st.sampled_from([("tcp", 1), ("udp", 1)]))
    ),
)
def test_the_short_form_of_fitness_is_the_long_one(candidates: list[Candidate], resources: Resources) -> None:
    demand = replace(a_demand(), resources=replace(resources, ports=frozenset(resources.ports)))
    for candidate in candidates:
        candidate.load.ports[("tcp", 1)] = candidate.load.tasks % 2
        assert fits(candidate, demand) is (first_refusal(candidate, demand, FITNESS) is None)


@settings(max_examples=200, deadline=None)
@given(
    hosts(),
    demands((RANDOM,), (SPREAD,), (ZONES, RACKS), (PACK_MEMORY, ZONES), (RACKS, RANDOM), (ZONES, RACKS, PACK_CPU)),
    st.integers(0, 30),
    st.integers(),
)
def test_it_never_over_commits_and_never_gives_up_too_early(
    candidates: list[Candidate], demand: Demand, count: int, seed: int
) -> None:
    placement = place(candidates, demand, count, random.Random(seed))
    wanted = demand.resources
    placed = Counter(placement.chosen)
    filters = [*FITNESS, distinct_instance] if DISTINCT in demand.constraints else FITNESS
    after = {}
    for candidate in candidates:
        load = candidate.load.copy()
        for _ in range(placed[candidate.id]):
            load.add(wanted, 1)
            load.add_to_group(GROUP, 1)
        after[candidate.id] = replace(candidate, load=load)
        total = candidate.instance.facts.resources
        if placed[candidate.id]:
            assert load.cpu_units <= total.cpu_units
            assert load.memory_mib <= total.memory_mib
            if DISTINCT in demand.constraints:
                assert placed[candidate.id] == 1
                assert not candidate.tasks_of(GROUP)
    if len(placement.chosen) < count:
        assert {refusal.instance_id for refusal in placement.refusals} == set(after)
        if not any(constraint.type == "memberOf" for constraint in demand.constraints):
            assert all(first_refusal(host, demand, filters) for host in after.values())
    else:
        assert len(placement.chosen) == count
        assert placement.refusals == ()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(0, 30))
def test_spread_over_empty_equal_hosts_is_even(number: int, count: int) -> None:
    candidates = [a_candidate(f"h{n}") for n in range(number)]
    placed = Counter(names(place(candidates, a_demand(), count, random.Random(1))))
    counts = [placed[f"h{n}"] for n in range(number)]
    assert max(counts) - min(counts) <= 1


class _Counting(dict[str, str]):
    """Required attributes that count how often a host is held against them."""

    looks = 0

    def items(self) -> Any:
        self.looks += 1
        return super().items()


@pytest.mark.parametrize("chain", [(SPREAD,), (ZONES, PACK_CPU), (RANDOM,)])
def test_hosts_are_looked_at_once_and_then_once_per_task(chain: tuple[Strategy, ...]) -> None:
    candidates = [a_candidate(f"h{n}", attributes={"arch": "x86", "zone": str(n % 3)}) for n in range(50)]
    required = _Counting(arch="x86")
    placement = place(candidates, a_demand(*chain, attributes=required), 200, random.Random(1))
    assert len(placement.chosen) == 200
    assert required.looks <= 50 + 200
