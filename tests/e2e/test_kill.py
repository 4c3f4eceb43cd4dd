"""kill -9 is a normal event: of the agent at each step of a task's life, of the control plane under load."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from botocore.exceptions import BotoCoreError

from tests.e2e.harness import Installation, eventually
from tests.e2e.registry import publish, registry

pytestmark = pytest.mark.e2e

SLEEP = ["sleep", "600"]


@contextmanager
def _docker_events(homeport: Installation, event: str) -> Iterator["subprocess.Popen[str]"]:
    """Listen for one kind of event of this host's containers."""
    label = f"label=homeport.instance={homeport.instance_id()}"
    # From now on, since the client may be connected only when all is over.
    command = ["docker", "events", "--since", str(int(time.time())), "--filter", label, "--filter", f"event={event}"]
    command += ["--format", "{{.ID}}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        try:
            yield listener
        finally:
            listener.terminate()


@pytest.mark.parametrize("event", ["create", "start"])
def test_the_agent_killed_at_a_step_of_a_tasks_start_carries_on_with_the_same_container(
    homeport: Installation, busybox: str, event: str
) -> None:
    agent = homeport.daemons[-1]
    definition = homeport.register("killed", {"name": "app", "image": busybox, "command": SLEEP})
    with _docker_events(homeport, event) as events, ThreadPoolExecutor() as pool:
        # The agent is to be killed at once: an event of a container made for it says that the client is connected.
        assert events.stdout is not None
        probe = homeport.docker(
            "create", "--label", f"homeport.instance={homeport.instance_id()}", busybox, "sleep", "0"
        )
        homeport.docker("start", probe)
        assert events.stdout.readline().strip() == probe
        homeport.docker("rm", "-f", probe)
        seen = pool.submit(events.stdout.readline)
        (arn,) = homeport.run(definition)
        seen.result(30)
        agent.kill()
    homeport.start_agent()
    task = homeport.wait(arn, "RUNNING")
    (container,) = homeport.containers()
    assert task["containers"][0]["runtimeId"] == container


def test_the_agent_killed_when_the_image_has_been_pulled_carries_on(homeport: Installation, busybox: str) -> None:
    with registry() as address:
        image = publish(busybox, "pulled:1", address)
        definition = homeport.register("pulled", {"name": "app", "image": image, "command": SLEEP})
        command = ["docker", "events", "--since", str(int(time.time())), "--filter", f"image={image}"]
        with subprocess.Popen([*command, "--filter", "event=pull"], stdout=subprocess.PIPE, text=True) as events:
            (arn,) = homeport.run(definition)
            assert events.stdout is not None
            assert " image pull " in events.stdout.readline()
            homeport.daemons[-1].kill()
            events.terminate()
        homeport.start_agent()
        task = homeport.wait(arn, "RUNNING")
    (container,) = task["containers"]
    assert homeport.containers() == [container["runtimeId"]]
    assert container["imageDigest"].startswith("sha256:")
    homeport.docker("rm", "-f", container["runtimeId"])
    homeport.docker("image", "rm", image)


def test_a_container_that_exits_while_the_agent_is_dead_is_reported_with_its_code(
    homeport: Installation, busybox: str
) -> None:
    definition = homeport.register(
        "orphaned", {"name": "app", "image": busybox, "command": ["sh", "-c", "read x; exit 7"], "interactive": True}
    )
    (arn,) = homeport.run(definition)
    runtime_id = homeport.wait(arn, "RUNNING")["containers"][0]["runtimeId"]
    homeport.daemons[-1].kill()
    subprocess.run(["docker", "attach", runtime_id], input=b"go\n", timeout=20, check=False, capture_output=True)
    eventually(lambda: homeport.docker("inspect", "-f", "{{.State.Running}}", runtime_id) == "false")
    homeport.start_agent()
    task = homeport.wait(arn, "STOPPED")
    assert task["containers"][0]["exitCode"] == 7


def test_an_exit_that_could_not_be_reported_before_the_agent_died_is_reported_after(
    homeport: Installation, busybox: str
) -> None:
    definition = homeport.register("unreported", {"name": "app", "image": busybox, "command": SLEEP})
    (arn,) = homeport.run(definition)
    runtime_id = homeport.wait(arn, "RUNNING")["containers"][0]["runtimeId"]
    agent = homeport.daemons[-1]
    homeport.control_plane.freeze()
    homeport.docker("kill", runtime_id)
    eventually(lambda: homeport.docker("inspect", "-f", "{{.State.Running}}", runtime_id) == "false")
    agent.kill()
    homeport.control_plane.thaw()
    homeport.start_agent()
    assert homeport.wait(arn, "STOPPED")["containers"][0]["exitCode"] == 137


def test_stopping_the_agent_leaves_its_containers_running(homeport: Installation, busybox: str) -> None:
    definition = homeport.register("stays", {"name": "app", "image": busybox, "command": SLEEP})
    (arn,) = homeport.run(definition)
    runtime_id = homeport.wait(arn, "RUNNING")["containers"][0]["runtimeId"]
    assert homeport.daemons[-1].stop() == 0
    assert homeport.containers("status=running") == [runtime_id]
    homeport.start_agent()
    assert homeport.task(arn)["lastStatus"] == "RUNNING"
    assert homeport.containers() == [runtime_id]


def test_nothing_that_run_task_answered_is_forgotten_when_the_control_plane_is_killed(
    control_plane: Installation,
) -> None:
    """200 concurrent RunTasks, kill -9 in their middle: every answered task is there, and none twice."""
    control_plane.simulate_hosts(3)
    definition = control_plane.register("many", {"name": "app", "image": "busybox", "command": SLEEP})
    client = control_plane.client("ecs")
    answered: list[str] = []

    def run_one(number: int) -> None:
        with suppress(BotoCoreError):  # killed in the middle: this one was not answered
            answer = client.run_task(taskDefinition=definition, clientToken=f"token-{number}", startedBy="storm")
            assert answer["failures"] == []
            answered.extend(task["taskArn"] for task in answer["tasks"])

    with ThreadPoolExecutor(40) as pool:
        storm = [pool.submit(run_one, number) for number in range(200)]
        eventually(lambda: len(answered) >= 60, every_s=0.001)
        control_plane.control_plane.kill()
        for each in storm:
            each.result(60)
    before = list(answered)
    assert 60 <= len(before) < 200
    control_plane.start_control_plane()
    found = _tasks_of(control_plane, "storm")
    assert set(before) <= found

    def connected() -> bool:
        arns = control_plane.ecs.list_container_instances()["containerInstanceArns"]
        hosts = control_plane.ecs.describe_container_instances(containerInstances=arns)["containerInstances"]
        return all(host["agentConnected"] for host in hosts)

    eventually(connected)
    # Repeating every request under its token makes 200 tasks in all: those there already are not made again.
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(run_one, range(200)))
    after = _tasks_of(control_plane, "storm")
    assert len(after) == 200
    assert found <= after


def _tasks_of(installation: Installation, started_by: str) -> set[str]:
    pages = installation.ecs.get_paginator("list_tasks").paginate(startedBy=started_by)
    return {arn for page in pages for arn in page["taskArns"]}
