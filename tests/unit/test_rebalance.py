"""Rebalancing: moves make the spread more even, one by one, and come to an end."""

import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.scheduling.model import Candidate, Constraint, Demand, Strategy
from controlplane.scheduling.placement import place
from controlplane.services.rebalance import MOVE_EVERY_S, ZONE, Moves, moves
from controlplane.state.load import HostLoad
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord, TaskRecord
from homeport.ids import InstanceId, TaskId
from homeport.protocol import HostFacts
from homeport.spec import Resources, TaskSpec
from homeport.status import DesiredStatus, TaskStatus

GROUP = "service:web"
ONE = Resources(cpu_units=100)
SPREAD_HOST = (Strategy("spread", "host"),)
SPREAD_ZONE = (Strategy("spread", ZONE), Strategy("spread", "host"))


class Cluster:
    """Hosts by name, each with a zone and room for so many tasks, and the tasks of one service on them."""

    def __init__(self, hosts: dict[str, tuple[str, int]], *, strategy: tuple[Strategy, ...] = SPREAD_HOST) -> None:
        self.hosts = hosts
        self.tasks: list[TaskRecord] = []
        self.demand = Demand(resources=ONE, group=GROUP, strategy=strategy)
        self.now = 1000.0
        self.last_moved_at: float | None = None
        self.moving: frozenset[TaskId] = frozenset()
        self.desired = 0
        self.steady = True
        self.over: Sequence[str] | None = None

    def run(self, host: str, count: int = 1) -> "Cluster":
        for _ in range(count):
            self._put(host)
            self.desired += 1
        return self

    def _put(self, host: str) -> None:
        number = len(self.tasks)
        spec = TaskSpec(task_arn="", cluster="default", family="web", revision=1, containers=())
        self.tasks.append(
            TaskRecord(
                id=TaskId(f"t{number:03}"),
                cluster="default",
                spec=spec,
                created_at=self.now,
                launch_type="EC2",
                status=TaskStatus.RUNNING,
                instance_id=InstanceId(host),
                resources=ONE,
                group=GROUP,
                started_at=float(number),
                healthy_at=float(number),
            )
        )

    def live(self) -> list[TaskRecord]:
        return [task for task in self.tasks if task.desired is DesiredStatus.RUNNING]

    def change(self, task_id: str, **members: object) -> None:
        self.tasks = [replace(task, **members) if task.id == task_id else task for task in self.tasks]

    def candidates(self) -> list[Candidate]:
        found = []
        for name, (zone, room) in self.hosts.items():
            load = HostLoad()
            for task in self.live():
                if task.instance_id == name:
                    load.add(task.resources, 1)
                    load.add_to_group(GROUP, 1)
            facts = HostFacts(
                hostname=name,
                agent_version="",
                resources=Resources(cpu_units=100 * room),
                attributes={ZONE: zone} if zone else {},
            )
            instance = InstanceRecord(
                id=InstanceId(name), cluster="default", public_key="", registered_at=0, facts=facts
            )
            found.append(Candidate(instance, load, Presence(connected=True, since=0, last_seen_at=0)))
        return found

    def ask(self) -> Moves:
        answer = moves(
            self.tasks,
            self.candidates(),
            self.demand,
            desired=self.desired,
            steady=self.steady,
            now=self.now,
            last_moved_at=self.last_moved_at,
            moving=self.moving,
            over=self.over,
        )
        if answer.begun:
            self.last_moved_at = self.now
        self.moving = answer.named
        return answer

    def move(self, task_id: TaskId) -> None:
        """Do as `decide` does: start first, then stop."""
        (host,) = place(self.candidates(), self.demand, 1, random.Random(7)).chosen
        self._put(host)
        assert self.ask().named == {task_id}, "it stays named while its replacement comes up"
        self.change(task_id, desired=DesiredStatus.STOPPED)

    def spread(self, level: str = "host") -> Counter[str]:
        counts = Counter({name if level == "host" else zone: 0 for name, (zone, _) in self.hosts.items()})
        for task in self.live():
            assert task.instance_id is not None
            counts[task.instance_id if level == "host" else self.hosts[task.instance_id][0]] += 1
        return counts


def two_hosts(**more: int) -> Cluster:
    """Four tasks on a, and b has just joined."""
    return Cluster({"a": ("", 10), "b": ("", 10), **{name: ("", room) for name, room in more.items()}}).run("a", 4)


def test_a_host_that_joins_gets_the_youngest_task_first() -> None:
    cluster = two_hosts()
    assert cluster.ask() == Moves(named=frozenset({TaskId("t003")}), begun=True)
    cluster.move(TaskId("t003"))
    assert cluster.spread() == {"a": 3, "b": 1}


def test_a_difference_of_one_is_even() -> None:
    assert Cluster({"a": ("", 10), "b": ("", 10)}).run("a", 2).run("b").ask() == Moves()


def test_one_at_a_time_and_not_too_often() -> None:
    cluster = two_hosts()
    cluster.ask()
    cluster.move(TaskId("t003"))
    assert cluster.ask() == Moves(wake_at=1000.0 + MOVE_EVERY_S)
    cluster.now += MOVE_EVERY_S
    assert cluster.ask() == Moves(named=frozenset({TaskId("t002")}), begun=True)
    cluster.now += 3600
    assert cluster.ask() == Moves(named=frozenset({TaskId("t002")})), "no second one while the first is under way"


def test_only_a_steady_service_is_rebalanced_but_what_has_begun_goes_on() -> None:
    cluster = two_hosts()
    cluster.steady = False
    assert cluster.ask() == Moves()
    cluster.steady = True
    named = cluster.ask().named
    cluster.steady = False
    assert cluster.ask() == Moves(named=named)


def test_a_move_is_called_off_when_there_is_nowhere_to_go_any_more() -> None:
    cluster = two_hosts()
    assert cluster.ask().named
    del cluster.hosts["b"]
    assert cluster.ask() == Moves()


def test_protected_tasks_and_those_that_are_not_well_stay() -> None:
    cluster = two_hosts()
    cluster.change("t003", protected_until=cluster.now + 60)
    cluster.change("t002", healthy_at=None)
    assert cluster.ask().named == {"t001"}
    for task in cluster.tasks:
        cluster.change(task.id, protected_until=cluster.now + 60)
    cluster.moving = frozenset()
    cluster.last_moved_at = None
    assert cluster.ask() == Moves()


def test_a_task_that_becomes_protected_under_way_stays_where_it_is() -> None:
    cluster = two_hosts()
    (named,) = cluster.ask().named
    cluster.change(named, protected_until=cluster.now + 60)
    assert named not in cluster.ask().named


def test_hosts_that_cannot_take_the_task_do_not_count() -> None:
    assert Cluster({"a": ("", 10), "b": ("", 0)}).run("a", 4).ask() == Moves()
    cluster = two_hosts()
    cluster.demand = replace(cluster.demand, constraints=(Constraint("memberOf", "attribute:gpu exists"),))
    assert cluster.ask() == Moves()
    cluster = two_hosts(c=10)
    cluster.demand = replace(cluster.demand, avoid=frozenset({InstanceId("b")}))
    assert cluster.ask().named
    cluster.move(next(iter(cluster.moving)))
    assert cluster.spread() == {"a": 3, "b": 0, "c": 1}


def test_a_host_to_be_avoided_is_no_place_to_move_to_even_if_no_other_has_room() -> None:
    cluster = two_hosts(c=0)
    cluster.demand = replace(cluster.demand, avoid=frozenset({InstanceId("b")}))
    cluster.hosts["a"] = ("", 4)
    assert cluster.ask() == Moves()


def test_packed_and_random_services_are_left_as_they_are() -> None:
    for strategy in (Strategy("binpack", "memory"), Strategy("random")):
        cluster = two_hosts()
        cluster.demand = replace(cluster.demand, strategy=(strategy,))
        assert cluster.ask() == Moves()


def test_zones_come_first_and_hosts_within_them_next() -> None:
    hosts = {"a1": ("a", 10), "a2": ("a", 10), "b1": ("b", 10)}
    cluster = Cluster(hosts, strategy=SPREAD_ZONE).run("a1", 4)
    drain(cluster)
    assert cluster.spread("zone") == {"a": 2, "b": 2}
    assert cluster.spread() == {"a1": 1, "a2": 1, "b1": 2}


def test_zone_rebalancing_evens_out_zones_alone() -> None:
    hosts = {"a1": ("a", 10), "a2": ("a", 10), "b1": ("b", 10)}
    cluster = Cluster(hosts, strategy=SPREAD_ZONE).run("a1", 2).run("b1", 2)
    cluster.over = (ZONE,)
    assert cluster.ask() == Moves(), "zones are even, whatever the hosts are"
    cluster = Cluster(hosts, strategy=SPREAD_ZONE).run("a1", 4)
    cluster.over = (ZONE,)
    drain(cluster)
    assert cluster.spread("zone") == {"a": 2, "b": 2}


def drain(cluster: Cluster) -> int:
    """Move until nothing is left to be moved; return how many moves that took."""
    for count in range(200):
        cluster.now += MOVE_EVERY_S
        named = cluster.ask().named
        if not named:
            assert cluster.ask() == Moves(wake_at=cluster.ask().wake_at)
            return count
        (task_id,) = named
        cluster.move(task_id)
    raise AssertionError(f"no end of moving: {cluster.spread()}")


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    names = [f"h{number}" for number in range(draw(st.integers(1, 6)))]
    hosts = {name: (draw(st.sampled_from("abc")), draw(st.integers(0, 12))) for name in names}
    strategy = draw(st.sampled_from([SPREAD_HOST, SPREAD_ZONE, (SPREAD_ZONE[0], Strategy("binpack", "cpu"))]))
    cluster = Cluster(hosts, strategy=strategy)
    for name, (_, room) in hosts.items():
        cluster.run(name, draw(st.integers(0, room)))
    if draw(st.booleans()):
        cluster.over = (ZONE,)
    return cluster


@given(cluster=clusters())
@settings(max_examples=150, deadline=None)
def test_whatever_the_cluster_moves_come_to_an_end_and_leave_it_as_even_as_can_be(cluster: Cluster) -> None:
    before = len(cluster.live())
    drain(cluster)
    assert len(cluster.live()) == before
    if cluster.over is None and cluster.demand.strategy == SPREAD_HOST:
        counts = cluster.spread()
        open_counts = [count for name, count in counts.items() if count < cluster.hosts[name][1]]
        if open_counts:
            assert max(counts.values()) - min(open_counts) <= 1
