"""Several hosts, each with an Engine and a network of its own: joining over TLS, partitions, Engines that die."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Installation, eventually, installation
from tests.e2e.hosts import EngineHost, Lan, add_engine_host, lan

pytestmark = pytest.mark.e2e

SLEEP = ["sleep", "600"]
FINISHED_AT = "{{if not .State.Running}}{{.State.FinishedAt}}{{end}}"


@pytest.fixture
def network() -> Iterator[Lan]:
    with lan() as made:
        yield made


@pytest.fixture
def fleet(tmp_path: Path, network: Lan) -> Iterator[Installation]:
    """A control plane that listens on the network, with TLS."""
    with installation(tmp_path, listen=f"{network.gateway}:0") as running:
        running.start_control_plane()
        yield running


def _health(fleet: Installation, host: EngineHost) -> str:
    (found,) = fleet.ecs.describe_container_instances(
        containerInstances=[fleet.instance_id(host.name)], include=["CONTAINER_INSTANCE_HEALTH"]
    )["containerInstances"]
    status: str = found["healthStatus"]["overallStatus"]
    return status


def test_two_hosts_join_over_tls_and_share_the_tasks(fleet: Installation, network: Lan, busybox: str) -> None:
    hosts = [add_engine_host(fleet, network, busybox) for _ in range(2)]
    definition = fleet.register("spread", {"name": "app", "image": busybox, "command": SLEEP})
    arns = fleet.run(definition, count=2, placementStrategy=[{"type": "spread", "field": "instanceId"}])
    for arn in arns:
        fleet.wait(arn, "RUNNING")
    assert [len(fleet.containers("status=running", name=host.name)) for host in hosts] == [1, 1]


@pytest.mark.parametrize("cut_s", [0, pytest.param(60, marks=pytest.mark.slow)], ids=["until-noticed", "for-a-minute"])
def test_a_host_that_is_cut_off_carries_on_and_reports_afterwards_what_happened_and_when(
    fleet: Installation, network: Lan, busybox: str, cut_s: float
) -> None:
    host = add_engine_host(fleet, network, busybox)
    command = ["sh", "-c", "while [ ! -e /tmp/stop ]; do sleep 0.1; done; exit 7"]
    arns = fleet.run(fleet.register("cut-off", {"name": "app", "image": busybox, "command": command}), count=2)
    stays, exits = (fleet.wait(arn, "RUNNING") for arn in arns)
    before = set(fleet.containers(name=host.name))
    host.cut()
    cut_at = time.monotonic()
    instance = fleet.instance_id(host.name)

    def connected() -> bool:
        (found,) = fleet.ecs.describe_container_instances(containerInstances=[instance])["containerInstances"]
        return bool(found["agentConnected"])

    eventually(lambda: not connected())
    runtime_id = exits["containers"][0]["runtimeId"]
    host.docker("exec", runtime_id, "touch", "/tmp/stop")
    finished = eventually(
        lambda: host.docker(
            "inspect", "-f", "{{if not .State.Running}}{{.State.FinishedAt}}{{end}}", runtime_id
        ).strip()
    )
    assert fleet.task(exits["taskArn"])["lastStatus"] == "RUNNING"  # silence is not a death
    eventually(lambda: time.monotonic() - cut_at > cut_s, within_s=cut_s + 10)
    host.mend()
    task = fleet.wait(exits["taskArn"], "STOPPED")
    assert task["containers"][0]["exitCode"] == 7
    assert task["executionStoppedAt"].strftime("%H:%M:%S") in finished
    assert fleet.task(stays["taskArn"])["lastStatus"] == "RUNNING"
    assert set(fleet.containers(name=host.name)) == before  # nothing was recreated


@pytest.mark.parametrize("live_restore", [True, False], ids=["live-restore", "no-live-restore"])
def test_an_engine_that_is_killed_loses_and_doubles_no_task(
    fleet: Installation, network: Lan, busybox: str, live_restore: bool
) -> None:
    host = add_engine_host(fleet, network, busybox, live_restore=live_restore)
    (arn,) = fleet.run(fleet.register("engine", {"name": "app", "image": busybox, "command": SLEEP}))
    runtime_id = fleet.wait(arn, "RUNNING")["containers"][0]["runtimeId"]
    host.engine.kill()
    eventually(lambda: _health(fleet, host) == "IMPAIRED")
    assert fleet.task(arn)["lastStatus"] == "RUNNING"  # Docker silent: nothing is invented
    host.start_engine(live_restore=live_restore)
    eventually(lambda: _health(fleet, host) == "OK")
    truly_running = host.docker("inspect", "-f", "{{.State.Running}}", runtime_id).strip() == "true"
    assert truly_running is live_restore
    if live_restore:
        assert fleet.task(arn)["lastStatus"] == "RUNNING"
    else:
        assert fleet.wait(arn, "STOPPED")["stopCode"] == "EssentialContainerExited"
    assert fleet.containers(name=host.name) == [runtime_id]


def test_an_engine_that_hangs_makes_no_task_lie(fleet: Installation, network: Lan, busybox: str) -> None:
    host = add_engine_host(fleet, network, busybox)
    definition = fleet.register("hangs", {"name": "app", "image": busybox, "command": SLEEP})
    (arn,) = fleet.run(definition)
    fleet.wait(arn, "RUNNING")
    host.engine.freeze()
    try:
        fleet.ecs.stop_task(task=arn)
        eventually(lambda: _health(fleet, host) == "IMPAIRED", within_s=60)
        task = fleet.task(arn)  # silence is no proof of a death
        assert task["lastStatus"] in ("RUNNING", "STOPPING")
        assert task["desiredStatus"] == "STOPPED"
    finally:
        host.engine.thaw()
    assert fleet.wait(arn, "STOPPED", within_s=60)["stopCode"] == "UserInitiated"
