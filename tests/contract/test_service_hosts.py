"""Services while hosts come and go: drained, joined, isolated; with a real reconciler and agents that obey."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from homeport.status import TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.server import ApiServer
from tests.contract.service_calls import create, describe
from tests.contract.test_service_life import AT_ONCE, SOON, live

__all__ = ["live"]


def steady(ecs: Any) -> None:
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=SOON)


def spread(server: ApiServer) -> Counter[str]:
    """How many tasks run on each host, by its name; hosts without any included."""

    def count() -> Counter[str]:
        state = server.context.state
        names = {instance.id: instance.facts.hostname for instance in state.instances}
        found = Counter(dict.fromkeys(names.values(), 0))
        for task in state.tasks:
            if task.status is TaskStatus.RUNNING and task.instance_id is not None:
                found[names[task.instance_id]] += 1
        return found

    return server.call(count)


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tags(**members: str) -> list[dict[str, str]]:
    own = [{"key": f"homeport:{name.replace('_', '-')}", "value": value} for name, value in members.items()]
    return AT_ONCE + own


def test_draining_moves_all_tasks_away_and_the_host_can_be_taken_back(
    homeport: Homeport, ecs: Any, server: ApiServer
) -> None:
    register(ecs)
    create(ecs, tags=AT_ONCE, desiredCount=4)
    steady(ecs)
    drained = homeport("drain", "a", "--timeout", "20s")
    assert "takes no more tasks, and none is left on it." in drained.stdout
    eventually(lambda: spread(server) == {"a": 0, "b": 4})
    assert describe(ecs)["runningCount"] == 4
    homeport("drain", "a", "--cancel")
    assert spread(server) == {"a": 0, "b": 4}, "nobody asked for a rebalance"


def test_at_its_deadline_a_drain_no_longer_waits_for_a_host_that_would_take_the_tasks(
    homeport: Homeport, ecs: Any, server: ApiServer
) -> None:
    (node,) = server.call(lambda: [i.id for i in server.context.state.instances if i.facts.hostname == "b"])
    ecs.deregister_container_instance(containerInstance=node)
    register(ecs)
    create(ecs, tags=AT_ONCE, desiredCount=2)
    steady(ecs)
    held_up = homeport("drain", "a", "--timeout", "1s", code=1).stderr
    assert "waits for room on another host (2 of 2 must stay healthy): was unable to place a task" in held_up
    assert "none is left on it." in homeport("drain", "a", "--deadline", "1s", "--timeout", "20s").stdout
    assert describe(ecs)["runningCount"] == 0


@pytest.mark.parametrize(("asked", "expected"), [(True, 1), (False, 0)])
def test_a_host_that_joins_gets_a_task_if_the_service_has_asked_for_that(
    ecs: Any, server: ApiServer, asked: bool, expected: int
) -> None:
    register(ecs)
    create(ecs, tags=tags(rebalance="true" if asked else "false"), desiredCount=4)
    steady(ecs)
    assert spread(server) == {"a": 2, "b": 2}
    running: list[int] = []

    def moved() -> bool:
        running.append(sum(spread(server).values()))
        return spread(server) == {"a": 2, "b": 1, "c": 1} or spread(server) == {"a": 1, "b": 2, "c": 1}

    Fleet(server).add_host("c")
    if asked:
        eventually(moved)
        assert min(running) >= 4, "start first"
    steady(ecs)
    assert spread(server)["c"] == expected
    assert max(spread(server).values()) == 2


def test_tasks_that_may_run_at_most_once_are_told_when_to_stop_by_themselves(ecs: Any, server: ApiServer) -> None:
    register(ecs)
    create(ecs, tags=tags(stop_when_isolated="true", lost_after="90"), desiredCount=1)
    steady(ecs)
    (spec,) = server.call(lambda: [task.spec for task in server.context.state.tasks])
    assert (spec.isolation_stop_s, spec.isolation_kill_s) == (55.0, 85.0)
