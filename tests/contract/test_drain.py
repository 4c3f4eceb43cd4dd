"""Draining a host: the deadline, what is left and what holds it up, and `homeport drain` as its reader sees it."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import EventRecord
from homeport.cli.client import Client
from homeport.cli.connection import resolve
from homeport.cli.errors import CliError, NotFound
from homeport.ids import InstanceId
from homeport.status import DesiredStatus, TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.fleet import WEB, Fleet, register_web, run
from tests.contract.rollouts import Rollouts
from tests.contract.server import ApiServer


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


@pytest.fixture
def node(fleet: Fleet) -> InstanceId:
    return fleet.add_host("anna")


@pytest.fixture
def client(data_dir: Path) -> Client:
    return Client(resolve(data_dir=data_dir, profile=None, environ={}))


def record(server: ApiServer, node: InstanceId) -> InstanceRecord:
    found = server.call(lambda: server.context.state.instances.get(node))
    assert found is not None
    return found


def change(server: ApiServer, task: TaskRecord, **members: Any) -> TaskRecord:
    """Change a task behind everybody's back."""
    changed: TaskRecord = replace(task, **members)

    def put() -> None:
        with server.context.state.transaction() as transaction:
            transaction.put(changed)

    server.call(put)
    return changed


def a_service(server: ApiServer, node: InstanceId, **members: Any) -> tuple[Rollouts, TaskRecord]:
    """A service whose one task runs on the host, healthy."""
    rollouts = Rollouts(server, "web", **{"desired_count": 1, **members})
    deployment = rollouts.deploy("SUCCESSFUL")
    return rollouts, rollouts.task(deployment.id, instance_id=node, healthy_at=1.0)


# ---------------------------------------------------------------- the operations


def test_ecs_own_call_notes_since_when_and_forgets_it_again(server: ApiServer, ecs: Any, node: InstanceId) -> None:
    def update(status: str) -> None:
        assert not ecs.update_container_instances_state(containerInstances=[node], status=status)["failures"]

    update("DRAINING")
    drained = record(server, node)
    assert drained.draining_at == pytest.approx(server.clock.now(), abs=30)
    assert drained.drain_deadline_at is None
    update("DRAINING")
    assert record(server, node) == drained, "nothing is done twice"
    update("ACTIVE")
    active = record(server, node)
    assert (active.status, active.draining_at, active.drain_deadline_at) == ("ACTIVE", None, None)


def test_a_deadline_can_be_given_moved_and_is_gone_with_the_drain(
    server: ApiServer, ecs: Any, client: Client, node: InstanceId
) -> None:
    first = client.own("DrainNode", node=node, deadlineS=60)
    drained = record(server, node)
    assert (drained.status, drained.version) == ("DRAINING", 2)
    assert drained.draining_at is not None
    assert drained.drain_deadline_at == pytest.approx(drained.draining_at + 60)
    assert first["drain"]["deadlineAt"] == drained.drain_deadline_at
    assert client.own("DrainNode", node=node)["drain"]["deadlineAt"] == drained.drain_deadline_at, "left as it is"
    assert client.own("DrainNode", node=node, deadlineS=0)["drain"]["startedAt"] == drained.draining_at
    assert (record(server, node).drain_deadline_at or 0) <= server.clock.now()
    ecs.update_container_instances_state(containerInstances=[node], status="ACTIVE")
    assert record(server, node).drain_deadline_at is None
    assert client.own("DescribeDrain", node=node)["drain"]["draining"] is False
    assert client.own("DrainNode", node=node)["drain"]["deadlineAt"] is None


def test_what_cannot_be_drained_is_refused(ecs: Any, client: Client, node: InstanceId) -> None:
    with pytest.raises(NotFound, match="No node was found with the id 'nobody'"):
        client.own("DrainNode", node="nobody")
    for deadline in (-1, 30 * 86400 + 1):
        with pytest.raises(CliError, match="deadlineS must be between 0 and 2592000 seconds"):
            client.own("DrainNode", node=node, deadlineS=deadline)
    ecs.deregister_container_instance(containerInstance=node)
    with pytest.raises(CliError, match="is deregistered"):
        client.own("DrainNode", node=node)


def test_describing_changes_nothing(server: ApiServer, client: Client, node: InstanceId) -> None:
    with server.unchanged():
        assert client.own("DescribeDrain", node=node)["drain"] == {
            "draining": False,
            "startedAt": None,
            "deadlineAt": None,
            "done": True,
            "serviceTasks": [],
            "standaloneTasks": [],
            "replacedTasks": [],
            "services": [],
        }


def test_what_is_left_is_told_by_kind(server: ApiServer, ecs: Any, client: Client, node: InstanceId) -> None:
    register_web(ecs)
    alone = run(ecs)["taskArn"].rsplit("/", 1)[-1]
    rollouts, task = a_service(server, node)
    lost = rollouts.task(task.started_by, instance_id=node, lost_at=2.0)
    drain = client.own("DrainNode", node=node)["drain"]
    assert [each["id"] for each in drain["standaloneTasks"]] == [alone]
    assert [each["id"] for each in drain["serviceTasks"]] == [task.id]
    assert [each["id"] for each in drain["replacedTasks"]] == [lost.id]
    assert drain["done"] is False
    _stop(server, task)
    assert client.own("DescribeDrain", node=node)["drain"]["done"] is True, "neither of the others holds it up"


def test_what_a_service_waits_for_is_said(
    server: ApiServer, ecs: Any, client: Client, fleet: Fleet, node: InstanceId
) -> None:
    rollouts, task = a_service(server, node)
    client.own("DrainNode", node=node)

    def waits_for() -> str:
        (service,) = client.own("DescribeDrain", node=node)["drain"]["services"]
        assert (service["cluster"], service["service"], service["tasks"]) == ("default", "web", 1)
        return str(service["waitsFor"])

    assert waits_for() == "the service's next step (1 of 1 must stay healthy)"
    successor = rollouts.task(task.started_by, TaskStatus.PENDING)
    assert waits_for() == "1 task to become healthy (1 of 1 must stay healthy)"
    _stop(server, successor)
    rollouts.update(deployment_configuration={"minimumHealthyPercent": 0})
    assert waits_for() == "the service's next step (none must stay healthy)"
    change(server, task, protected_until=server.clock.now() + 60)
    assert waits_for() == "the end of the tasks' scale-in protection"
    fleet.set_presence(node, connected=False)
    assert waits_for().startswith("the host, which isn't connected")
    change(server, task, desired=DesiredStatus.STOPPED)
    assert waits_for() == "its task to stop"


def test_a_service_without_room_elsewhere_says_why(server: ApiServer, client: Client, node: InstanceId) -> None:
    rollouts, task = a_service(server, node)
    deployment = server.context.state.deployments.get(task.started_by)
    assert deployment is not None
    rollouts.put(replace(deployment, placement_event="RESOURCE:MEMORY", placement_event_at=1.0))
    sentence = "(service web) was unable to place a task because no container instance met all of its requirements."
    rollouts.put(EventRecord(id="e", service_id=rollouts.service.id, number=1, at=1.0, message=sentence))
    (service,) = client.own("DrainNode", node=node)["drain"]["services"]
    assert service["waitsFor"] == (
        "room on another host (1 of 1 must stay healthy): "
        "was unable to place a task because no container instance met all of its requirements."
    )


# ---------------------------------------------------------------- the command


def test_draining_an_empty_host_ends_at_once(homeport: Homeport, server: ApiServer, node: InstanceId) -> None:
    drained = homeport("drain", "anna", "--deadline", "10m")
    assert drained.stdout == f"{node[:12]} (anna) takes no more tasks, and none is left on it.\n"
    assert record(server, node).drain_deadline_at is not None
    assert re.search(r"^status: +DRAINING since .+, with a deadline at ", homeport("nodes", "anna").stdout, re.M)
    assert homeport("drain", "anna", "--cancel").stdout == f"{node[:12]} (anna) takes tasks again.\n"
    assert record(server, node).status == "ACTIVE"
    assert re.search(r"^status: +ACTIVE$", homeport("nodes", "anna").stdout, re.M)


def test_standalone_tasks_do_not_hold_it_up_but_are_named_with_how_to_stop_them(
    homeport: Homeport, ecs: Any, fleet: Fleet, node: InstanceId
) -> None:
    register_web(ecs, containers=[WEB])
    arn = run(ecs)["taskArn"]
    fleet.running(arn)
    drained = homeport("drain", "anna")
    assert drained.stdout == f"{node[:12]} (anna) takes no more tasks, and services have none left on it.\n"
    assert "1 standalone task still runs there, and nobody moves those" in drained.stderr
    assert f"homeport stop {arn.rsplit('/', 1)[-1][:12]}     # web:1, RUNNING" in drained.stderr
    document = json.loads(homeport("drain", "anna", "--json").stdout)
    assert document["status"] == "DRAINING"
    assert [task["lastStatus"] for task in document["drain"]["standaloneTasks"]] == ["RUNNING"]


def test_not_waiting_tells_what_is_left(homeport: Homeport, server: ApiServer, node: InstanceId) -> None:
    a_service(server, node)
    drained = homeport("drain", "anna", "--no-wait", "--deadline", "5m")
    assert drained.stdout.startswith(
        f"{node[:12]} (anna) takes no more tasks; 1 service task left to be moved; what is "
    )
    assert "web: 1 left, waits for the service's next step" in drained.stderr


def test_waiting_shows_each_change_and_ends_with_the_last_service_task(
    homeport: Homeport, server: ApiServer, node: InstanceId
) -> None:
    _, task = a_service(server, node)
    stopping = threading.Thread(target=lambda: _when_draining(server, node, lambda: _stop(server, task)))
    stopping.start()
    drained = homeport("drain", "anna", "--timeout", "20s")
    stopping.join()
    assert drained.stdout == f"{node[:12]} (anna) takes no more tasks, and none is left on it.\n"
    assert drained.stderr.startswith(f"Draining {node[:12]} (anna): 1 service task left\n  web: 1 left, waits for ")


def test_waiting_has_a_limit_and_notices_that_others_have_called_it_off(
    homeport: Homeport, server: ApiServer, ecs: Any, node: InstanceId
) -> None:
    a_service(server, node)
    refused = homeport("drain", "anna", "--timeout", "0s", code=1).stderr
    assert "After 0s there is still 1 service task on the node. The drain goes on." in refused
    assert "What it waits for: web: 1 left" in refused
    homeport("drain", "anna", "--cancel")

    def activate() -> None:
        ecs.update_container_instances_state(containerInstances=[node], status="ACTIVE")

    calling_off = threading.Thread(target=lambda: _when_draining(server, node, activate))
    calling_off.start()
    assert "somebody has set the node ACTIVE again" in homeport("drain", "anna", "--timeout", "20s", code=1).stderr
    calling_off.join()


def test_ctrl_c_leaves_the_drain_going_and_says_so(server: ApiServer, data_dir: Path, node: InstanceId) -> None:
    a_service(server, node)
    # Tests that run in the background may have been told to ignore Ctrl-C, which their children would inherit.
    command = ["env", "--default-signal=INT", str(Path(sys.executable).with_name("homeport")), "drain", "anna"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert first == f"Draining {node[:12]} (anna): 1 service task left\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert f"The drain of {node[:12]} (anna) goes on without you." in said
    assert "homeport drain anna --cancel" in said
    assert record(server, node).status == "DRAINING"


def _when_draining(server: ApiServer, node: InstanceId, act: Callable[[], None]) -> None:
    deadline = time.monotonic() + 20
    while record(server, node).status != "DRAINING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    act()


def _stop(server: ApiServer, task: TaskRecord) -> None:
    change(server, task, status=TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=server.clock.now())
