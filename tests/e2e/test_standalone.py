"""Time limits, retries and exclusive groups on a real Engine, with the control plane killed in between."""

from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.harness import Installation, eventually

pytestmark = pytest.mark.e2e


def _tags(**values: object) -> list[dict[str, str]]:
    return [{"key": f"homeport:{name}", "value": str(value)} for name, value in values.items()]


def _of_family(homeport: Installation, family: str) -> list[dict[str, Any]]:
    """All tasks of a family, the oldest first."""
    arns = [
        arn
        for desired in ("RUNNING", "STOPPED")
        for arn in homeport.ecs.list_tasks(family=family, desiredStatus=desired)["taskArns"]
    ]
    tasks = homeport.ecs.describe_tasks(tasks=arns, include=["TAGS"])["tasks"] if arns else []
    return sorted(tasks, key=lambda task: task["createdAt"])


def test_retries_are_counted_and_time_limits_kept_though_the_control_plane_is_killed(
    homeport: Installation, busybox: str
) -> None:
    fails = homeport.register("fails", {"name": "app", "image": busybox, "command": ["sh", "-c", "exit 1"]})
    long = homeport.register("long", {"name": "app", "image": busybox, "command": ["sleep", "600"]})
    (late,) = homeport.run(long, tags=_tags(timeout=2))
    (first,) = homeport.run(fails, tags=_tags(retries=2))
    homeport.wait(first, "STOPPED")
    eventually(lambda: len(_of_family(homeport, "fails")) > 1)
    homeport.control_plane.kill()
    homeport.start_control_plane()

    def all_ended() -> list[dict[str, Any]]:
        tasks = _of_family(homeport, "fails")
        return tasks if len(tasks) == 3 and all(task["lastStatus"] == "STOPPED" for task in tasks) else []

    tasks = eventually(all_ended)
    assert [task["containers"][0]["exitCode"] for task in tasks] == [1, 1, 1]
    shown = [{tag["key"]: tag["value"] for tag in task["tags"]} for task in tasks]
    assert [tags.get("homeport:attempt") for tags in shown] == [None, "2", "3"]
    befores = [None, *(task["taskArn"].rsplit("/", 1)[-1] for task in tasks[:2])]
    assert [tags.get("homeport:retry-of") for tags in shown] == befores
    task = homeport.wait(late, "STOPPED")
    assert task["stoppedReason"] == "The task ran for longer than 2 s, the limit of its tag homeport:timeout"
    assert len(_of_family(homeport, "long")) == 1
    assert len(_of_family(homeport, "fails")) == 3
    assert homeport.containers(everything=False) == []


def test_tasks_of_an_exclusive_group_run_one_after_another(homeport: Installation, busybox: str) -> None:
    definition = homeport.register("alone", {"name": "app", "image": busybox, "command": ["sleep", "0.2"]})
    arns = homeport.run(definition, count=3, tags=_tags(exclusive="one"))
    ended = [homeport.wait(arn, "STOPPED") for arn in arns]
    for before, after in pairwise(ended):
        assert before["executionStoppedAt"] <= after["startedAt"]
