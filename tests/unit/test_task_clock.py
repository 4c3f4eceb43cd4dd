"""Tasks on a host that has its clock set back, as one that boots with the wrong time, then asks NTP.

What was waited for since before then isn't waited for until the clock is there again.
"""

from agent.task.messages import EnsureFailed, Failed, Pull
from agent.task.model import Verb
from homeport.spec import TaskSpec
from homeport.status import TaskStatus
from tests.fakes.agent_host import assignment, container, restarts, spec_of
from tests.fakes.task_world import Driver

HOUR_S = 3600.0


def driver(spec: TaskSpec | None = None) -> Driver:
    task = Driver(assignment(spec))
    task.now += 2 * HOUR_S
    return task


def test_an_image_is_pulled_again() -> None:
    task = driver()
    task.go_until(Pull)
    task.tell(Failed("web", Verb.PULL, "unavailable", "down"))
    assert task.wake_at is not None
    task.now -= HOUR_S
    task.go()
    assert task.status() is TaskStatus.RUNNING


def test_volumes_are_made_after_all() -> None:
    task = driver()
    task.tell(EnsureFailed("volumes", "unavailable", "down"))
    assert task.wake_at is not None
    task.now -= HOUR_S
    task.go()
    assert task.status() is TaskStatus.RUNNING


def test_a_container_that_ends_is_restarted_by_its_policy() -> None:
    task = driver(spec_of(container("web", restart_policy=restarts(60)))).go()
    task.now += 61
    task.now -= HOUR_S
    task.exits("web", 1)
    assert task.status() is TaskStatus.RUNNING
    assert task.told("restarting") == "Exited with code 1; restarting it (restart 1)"
    # From there on its period counts as ever.
    task.now += 10
    task.exits("web", 1)
    assert task.over()
    assert "not restarted: it ended 10 s after it was last started" in task.told("exited")
