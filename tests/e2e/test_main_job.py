"""The main job on a real Engine through the stock boto3 client: run, see the truth, stop."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import urlopen

import pytest

from tests.e2e.harness import Installation, eventually

pytestmark = pytest.mark.e2e

SLEEP = ["sleep", "600"]
LIMITS = "{{.HostConfig.Memory}} {{.HostConfig.MemoryReservation}} {{.HostConfig.CpuShares}}"


def _fast(waiter: Any, **arguments: Any) -> None:
    waiter.wait(**arguments, WaiterConfig={"Delay": 1, "MaxAttempts": 40})


def test_a_web_container_runs_answers_and_is_stopped(homeport: Installation, busybox: str) -> None:
    web = {
        "name": "web",
        "image": busybox,
        "entryPoint": ["sh", "-c"],
        "command": ["echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"],
        "portMappings": [{"containerPort": 8080}],
        "stopTimeout": 2,
    }
    (arn,) = homeport.run(homeport.register("web", web))
    _fast(homeport.ecs.get_waiter("tasks_running"), tasks=[arn])
    task = homeport.task(arn)
    (container,) = task["containers"]
    (binding,) = container["networkBindings"]
    assert (binding["containerPort"], binding["protocol"]) == (8080, "tcp")

    def answer() -> str:
        with urlopen(f"http://127.0.0.1:{binding['hostPort']}/", timeout=2) as page:
            text: str = page.read().decode().strip()
            return text

    assert eventually(answer) == "hello"
    homeport.ecs.stop_task(task=arn, reason="enough")
    _fast(homeport.ecs.get_waiter("tasks_stopped"), tasks=[arn])
    stopped = homeport.task(arn)
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "enough")
    assert stopped["containers"][0]["exitCode"] in (137, 143)
    assert stopped["createdAt"] <= stopped["startedAt"] <= stopped["stoppingAt"] <= stopped["stoppedAt"]


@pytest.mark.parametrize(
    ("command", "exit_code", "reason"),
    [
        (["sh", "-c", "exit 0"], 0, None),
        (["sh", "-c", "exit 42"], 42, None),
        (
            ["sh", "-c", "x=x; while true; do x=$x$x; done"],
            137,
            "OutOfMemoryError: Container killed due to memory usage",
        ),
    ],
    ids=["success", "failure", "out-of-memory"],
)
def test_exit_codes_and_out_of_memory_are_told_truly(
    homeport: Installation, busybox: str, command: list[str], exit_code: int, reason: str | None
) -> None:
    definition = homeport.register("exits", {"name": "app", "image": busybox, "command": command, "memory": 16})
    (arn,) = homeport.run(definition)
    task = homeport.wait(arn, "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    (container,) = task["containers"]
    assert container["exitCode"] == exit_code
    assert container.get("reason") == reason


def test_an_image_that_cannot_be_pulled_fails_the_start_with_the_engines_words(homeport: Installation) -> None:
    image = "127.0.0.1:9/nothing/here:1"
    (arn,) = homeport.run(homeport.register("missing", {"name": "app", "image": image}))
    task = homeport.wait(arn, "STOPPED")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    (container,) = task["containers"]
    assert container["reason"].startswith("CannotPullContainerError: ")
    assert "exitCode" not in container


def test_the_limits_asked_for_are_the_limits_of_the_container(homeport: Installation, busybox: str) -> None:
    app = {"name": "app", "image": busybox, "command": SLEEP, "memory": 32, "memoryReservation": 16, "cpu": 512}
    (arn,) = homeport.run(homeport.register("limits", app))
    runtime_id = homeport.wait(arn, "RUNNING")["containers"][0]["runtimeId"]
    limits = homeport.docker(
        "inspect",
        "-f",
        "{{.HostConfig.Memory}} {{.HostConfig.MemoryReservation}} {{.HostConfig.CpuShares}}",
        runtime_id,
    )
    assert limits == f"{32 << 20} {16 << 20} 512"


def test_a_killed_container_comes_back_in_place_under_its_restart_policy(homeport: Installation, busybox: str) -> None:
    policy = {"enabled": True, "restartAttemptPeriod": 60}
    app = {"name": "app", "image": busybox, "command": SLEEP, "restartPolicy": policy}
    # ECS's shortest period is a minute; the tag lets a container that has run for 4 s come back.
    tags = [{"key": "homeport:restart-attempt-period", "value": "4"}]
    (arn,) = homeport.run(homeport.register("comes-back", app, tags=tags))
    runtime_id = homeport.wait(arn, "RUNNING")["containers"][0]["runtimeId"]

    def started_at() -> datetime:
        text = homeport.docker("inspect", "-f", "{{.State.StartedAt}}", runtime_id)
        return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")

    first = started_at()
    eventually(lambda: datetime.now(UTC) - first > timedelta(seconds=4.5))
    homeport.docker("kill", runtime_id)
    eventually(lambda: started_at() > first)
    assert homeport.task(arn)["lastStatus"] == "RUNNING"
    homeport.docker("kill", runtime_id)  # at once: it has not run for the period
    task = homeport.wait(arn, "STOPPED")
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["containers"][0]["exitCode"] == 137


def test_a_draining_host_takes_no_new_tasks_and_says_so(homeport: Installation, busybox: str) -> None:
    definition = homeport.register("drain", {"name": "app", "image": busybox, "command": SLEEP})
    instance = homeport.instance_id()
    homeport.ecs.update_container_instances_state(containerInstances=[instance], status="DRAINING")
    answer = homeport.ecs.run_task(taskDefinition=definition)
    assert answer["tasks"] == []
    assert answer["failures"]
    homeport.ecs.update_container_instances_state(containerInstances=[instance], status="ACTIVE")
    (arn,) = homeport.run(definition)
    homeport.wait(arn, "RUNNING")
