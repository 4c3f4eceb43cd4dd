"""The units, as systemd reads them and as it runs them: a real systemd in a container."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.debian import CHECKOUT, debian_image, make_wheels, own_wheel
from tests.e2e.harness import eventually
from tests.e2e.machine import Machine
from tests.packages import install_debian_package, run

pytestmark = pytest.mark.e2e
UNITS = ("homeport-controlplane", "homeport-agent")


@pytest.fixture(scope="module", autouse=True)
def _systemd_tools() -> None:
    if shutil.which("systemd-analyze") is None:
        if os.geteuid() != 0:
            pytest.skip("systemd-analyze is not installed, and only root can install it")
        install_debian_package("systemd-analyze", "systemd")


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say_against_the_unit(unit: str, tmp_path: Path) -> None:
    # systemd wants the command to exist; nothing is installed here.
    text = (CHECKOUT / f"systemd/{unit}.service").read_text().replace(f"/opt/homeport/bin/{unit}", "/bin/true")
    path = tmp_path / f"{unit}.service"
    path.write_text(text)
    done = run("systemd-analyze", "verify", "--man=no", path, check=False)
    assert [line for line in done.stderr.splitlines() if unit in line] == []


@pytest.mark.parametrize(("unit", "at_most"), [("homeport-controlplane", 2.0), ("homeport-agent", 4.0)])
def test_the_unit_is_hardened(unit: str, at_most: float) -> None:
    path = CHECKOUT / f"systemd/{unit}.service"
    threshold = f"--threshold={int(at_most * 10)}"
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", threshold, path, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= at_most
    assert done.returncode == 0


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheelhouse")
    make_wheels(directory)
    own_wheel(directory)
    return directory


@pytest.fixture(scope="module")
def machine(wheelhouse: Path) -> Iterator[Machine]:
    """A Debian host with systemd, where both daemons are installed as docs/operations.md says."""
    with Machine.started(debian_image()) as machine:
        machine.copy(wheelhouse, "/wheels")
        machine.sh("python3 -m venv /opt/homeport")
        machine.sh("/opt/homeport/bin/pip install -q --no-index --find-links /wheels 'homeport[agent,controlplane]'")
        machine.sh("useradd --system --home-dir /var/lib/homeport --shell /usr/sbin/nologin homeport")
        machine.sh("install -m 0644 /opt/homeport/share/homeport/systemd/*.service /etc/systemd/system/")
        machine.sh("systemctl daemon-reload")
        yield machine


@pytest.fixture
def control_plane(machine: Machine) -> Iterator[Machine]:
    """The machine with its control plane started by systemd; stopped and forgotten afterwards."""
    machine.settings("controlplane", HOMEPORT_LISTEN="http://127.0.0.1:6180 https://0.0.0.0:6181")
    machine.sh("systemctl start homeport-controlplane")
    yield machine
    machine.sh("systemctl stop homeport-agent homeport-controlplane; systemctl reset-failed")
    machine.sh(
        "rm -rf /var/lib/homeport /etc/homeport /etc/systemd/system/homeport-*.service.d; systemctl daemon-reload"
    )


@pytest.mark.slow
def test_the_control_plane_is_active_once_it_answers_and_stops_cleanly(control_plane: Machine) -> None:
    unit = "homeport-controlplane"
    # `systemctl start` of a notifying unit returns once READY=1 has come.
    assert control_plane.show(unit, "ActiveState") == "active"
    assert control_plane.get("http://127.0.0.1:6180/readyz") == "ok\n"
    assert control_plane.sh("stat -c '%U %a' /var/lib/homeport/controlplane") == "homeport 700"
    assert control_plane.sh("stat -c '%U %a' /var/lib/homeport/controlplane/credentials.json") == "homeport 600"
    assert control_plane.sh(f"stat -c %U /proc/{control_plane.show(unit, 'MainPID')}") == "homeport"
    control_plane.sh(f"systemctl stop {unit}")
    assert control_plane.show(unit, "ActiveState") == "inactive"
    assert control_plane.show(unit, "Result") == "success"


@pytest.mark.slow
def test_a_killed_control_plane_is_started_again_with_its_state(control_plane: Machine) -> None:
    unit = "homeport-controlplane"
    key = control_plane.sh("cat /var/lib/homeport/controlplane/credentials.json")
    pid = control_plane.show(unit, "MainPID")
    control_plane.sh(f"kill -9 {pid}")
    eventually(lambda: control_plane.show(unit, "NRestarts") == "1")
    eventually(lambda: control_plane.show(unit, "ActiveState") == "active")
    assert control_plane.show(unit, "MainPID") != pid
    assert control_plane.sh("cat /var/lib/homeport/controlplane/credentials.json") == key


@pytest.mark.slow
def test_a_backup_that_root_restores_belongs_to_the_daemon_again(control_plane: Machine) -> None:
    unit, homeport = "homeport-controlplane", "/opt/homeport/bin/homeport"
    control_plane.ecs().create_cluster(clusterName="kept")
    control_plane.sh(f"{homeport} backup --data-dir /var/lib/homeport /root/backup")
    control_plane.ecs().create_cluster(clusterName="made-afterwards")
    control_plane.sh(f"systemctl stop {unit}")
    control_plane.sh(f"{homeport} restore --data-dir /var/lib/homeport --force /root/backup")
    control_plane.sh(f"systemctl start {unit}")
    clusters = control_plane.ecs().list_clusters()["clusterArns"]
    assert sorted(arn.rpartition("/")[2] for arn in clusters) == ["default", "kept"]
    assert control_plane.sh("find /var/lib/homeport/controlplane -not -user homeport") == ""
    control_plane.sh("rm /root/backup")


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_a_daemon_that_hangs_is_found_out_by_the_watchdog(control_plane: Machine, unit: str) -> None:
    control_plane.drop_in(unit, "[Service]\nWatchdogSec=2\n")
    if unit == "homeport-agent":
        control_plane.join()
    control_plane.sh(f"systemctl restart {unit}")
    # It lives on while it turns, well beyond the period ...
    pid = control_plane.show(unit, "MainPID")
    began_us = int(control_plane.show(unit, "WatchdogTimestampMonotonic"))
    eventually(lambda: int(control_plane.show(unit, "WatchdogTimestampMonotonic")) > began_us + 3_000_000)
    assert control_plane.show(unit, "MainPID") == pid
    # ... and not when it doesn't.
    control_plane.sh(f"kill -STOP {pid}")
    eventually(lambda: control_plane.show(unit, "MainPID") not in (pid, "0"))
    eventually(lambda: control_plane.show(unit, "ActiveState") == "active")


@pytest.mark.slow
def test_a_wrong_setting_fails_with_a_reason_and_is_not_tried_again(machine: Machine) -> None:
    unit = "homeport-controlplane"
    machine.settings("controlplane", HOMEPORT_REGION="Not a region!")
    try:
        assert machine.sh(f"systemctl start {unit}; echo $?").endswith("1")
        assert machine.show(unit, "ActiveState") == "failed"
        assert machine.show(unit, "ExecMainStatus") == "78"
        assert machine.show(unit, "NRestarts") == "0"
        assert "Not a region!" in machine.journal(unit)
    finally:
        machine.sh(f"systemctl reset-failed {unit}; rm -rf /etc/homeport /var/lib/homeport")


@pytest.mark.slow
def test_an_agent_that_has_not_joined_says_so_and_is_not_tried_again(machine: Machine) -> None:
    unit = "homeport-agent"
    machine.sh(f"systemctl start {unit}; true")
    assert machine.show(unit, "ActiveState") == "failed"
    assert machine.show(unit, "ExecMainStatus") == "78"
    assert machine.show(unit, "NRestarts") == "0"
    assert "homeport-agent join" in machine.journal(unit)
    machine.sh(f"systemctl reset-failed {unit}")


@pytest.mark.slow
def test_the_agents_unit_lets_it_do_what_task_limits_need_and_no_more(machine: Machine) -> None:
    """Run a script in the agent's stead, under all that its unit forbids."""
    unit = "homeport-agent"
    script = """
        set -e
        cd /sys/fs/cgroup; [ -e cgroup.controllers ] || cd systemd
        mkdir homeport-try; rmdir homeport-try
        printf '[Slice]\\nMemoryMax=64M\\n' > /run/systemd/system/homeport-try.slice
        systemctl start homeport-try.slice; systemctl is-active homeport-try.slice; systemctl stop homeport-try.slice
        rm /run/systemd/system/homeport-try.slice
        touch /var/lib/homeport/agent/try
        curl -fsS --unix-socket /var/run/docker.sock http://docker/_ping
        for forbidden in /etc /usr /home /opt/homeport; do
            if touch $forbidden/try; then echo "may write to $forbidden"; exit 1; fi
        done
        if mount -t tmpfs none /mnt; then echo "may mount"; exit 1; fi
    """
    machine.sh(f"printf '%s' {shlex.quote(script)} > /opt/try")
    machine.drop_in(unit, "[Service]\nType=oneshot\nRestart=no\nExecStart=\nExecStart=/bin/sh /opt/try\n")
    try:
        machine.sh(f"systemctl start {unit} || journalctl -u {unit} >&2")
        assert machine.show(unit, "ExecMainStatus") == "0", machine.journal(unit)
        assert machine.show(unit, "Result") == "success"
    finally:
        machine.sh(f"rm -r /etc/systemd/system/{unit}.service.d; systemctl daemon-reload; rm -rf /var/lib/homeport")


@pytest.mark.slow
def test_stopping_or_killing_the_agent_leaves_its_containers_alone(control_plane: Machine) -> None:
    unit = "homeport-agent"
    run(CHECKOUT / "scripts/sample-image")
    control_plane.join()
    control_plane.sh(f"systemctl start {unit}")
    ecs = control_plane.ecs()
    eventually(lambda: control_plane.instances()[0]["agentConnected"])
    ecs.register_task_definition(
        family="web", containerDefinitions=[{"name": "web", "image": "homeport/sample:1", "memory": 32}]
    )
    (task,) = ecs.run_task(taskDefinition="web")["tasks"]
    try:
        eventually(lambda: ecs.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]["lastStatus"] == "RUNNING")
        (container,) = control_plane.containers()
        control_plane.sh(f"systemctl stop {unit}")
        assert control_plane.show(unit, "Result") == "success"
        assert control_plane.containers() == [container]
        control_plane.sh(f"systemctl start {unit}")
        control_plane.sh(f"kill -9 {control_plane.show(unit, 'MainPID')}")
        eventually(lambda: control_plane.show(unit, "NRestarts") == "1")
        eventually(lambda: control_plane.instances()[0]["agentConnected"])
        assert control_plane.containers() == [container]
        ecs.stop_task(task=task["taskArn"])
        eventually(lambda: ecs.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]["lastStatus"] == "STOPPED")
    finally:
        control_plane.remove_containers()


@pytest.mark.slow
def test_a_bare_host_joins_with_the_one_command_that_add_node_prints(control_plane: Machine) -> None:
    command = control_plane.sh("/opt/homeport/bin/homeport add-node --data-dir /var/lib/homeport 2>/dev/null")
    assert "\n" not in command
    with Machine.started(debian_image()) as bare:
        # It finds no other host than those whose addresses it is told: no package index, no mirror.
        bare.sh(": > /etc/resolv.conf")
        said = bare.sh(command)
        assert "connected: this host is ready" in said
        assert bare.show("homeport-agent", "ActiveState") == "active"
        assert bare.sh("systemctl is-enabled homeport-agent") == "enabled"
        (instance,) = control_plane.instances()
        assert instance["agentConnected"]
        # Running it again upgrades, and keeps the host's identity.
        before = bare.sh("cat /var/lib/homeport/agent/identity.json")
        assert "keeps its identity" in bare.sh(command)
        assert bare.sh("cat /var/lib/homeport/agent/identity.json") == before
        assert len(control_plane.instances()) == 1
