"""How a task's control group is made, in each of Docker's layouts."""

from pathlib import Path

import pytest

from agent.cgroups import TaskCgroups, needs_cgroup, plan_cgroup, slice_unit
from agent.engine.api import EngineInfo
from homeport.ids import TaskId
from homeport.spec import ContainerSpec, TaskSpec

TASK_ID = TaskId("ab" * 16)
ROOT = Path("/cg")
MIB = 1024 * 1024


def info(version: str = "2", driver: str = "cgroupfs") -> EngineInfo:
    return EngineInfo(
        version="28",
        os_type="linux",
        architecture="x86_64",
        cgroup_version="1" if version == "1" else "2",
        cgroup_driver=driver,
        root_dir="/d",
        live_restore=False,
    )


def task(cpu_units: int | None = 512, memory_mib: int | None = 64) -> TaskSpec:
    containers = tuple(
        ContainerSpec(name=name, image="x", container_arn="", cpu_units=units) for name, units in (("a", 300), ("b", 0))
    )
    return TaskSpec(
        task_arn="arn",
        cluster="c",
        family="f",
        revision=1,
        containers=containers,
        cpu_units=cpu_units,
        memory_mib=memory_mib,
    )


def test_only_tasks_with_limits_of_their_own_have_one() -> None:
    assert needs_cgroup(task())
    assert needs_cgroup(task(memory_mib=None))
    assert not needs_cgroup(task(None, None))


def test_v1() -> None:
    plan = plan_cgroup(ROOT, "1", TASK_ID, task())
    memory, cpu = ROOT / "memory/homeport" / TASK_ID, ROOT / "cpu/homeport" / TASK_ID
    assert plan.directories == (memory.parent, memory, cpu.parent, cpu)
    assert plan.writes == (
        (cpu / "cpu.shares", "512", True),
        (cpu / "cpu.cfs_period_us", "100000", True),
        (cpu / "cpu.cfs_quota_us", "50000", True),
        (memory / "memory.use_hierarchy", "1", False),
        (memory / "memory.limit_in_bytes", str(64 * MIB), True),
        (memory / "memory.memsw.limit_in_bytes", str(64 * MIB), False),
    )


def test_v2() -> None:
    plan = plan_cgroup(ROOT, "2", TASK_ID, task())
    group = ROOT / "homeport" / TASK_ID
    assert plan.directories == (ROOT / "homeport", group)
    assert plan.writes == (
        (ROOT / "cgroup.subtree_control", "+cpu +memory", True),
        (ROOT / "homeport/cgroup.subtree_control", "+cpu +memory", True),
        (group / "cpu.weight", "20", True),
        (group / "cpu.max", "50000 100000", True),
        (group / "memory.max", str(64 * MIB), True),
        (group / "memory.swap.max", "0", False),
    )


def test_without_a_cpu_of_its_own_a_task_weighs_what_its_containers_do() -> None:
    writes = {path.name: value for path, value, _ in plan_cgroup(ROOT, "1", TASK_ID, task(cpu_units=None)).writes}
    assert writes["cpu.shares"] == "302"
    assert "cpu.cfs_quota_us" not in writes


def test_a_slice() -> None:
    assert slice_unit(TASK_ID, task(cpu_units=256)).splitlines()[3:] == [
        "[Slice]",
        "CPUWeight=10",
        "CPUQuota=25.00%",
        "CPUQuotaPeriodSec=100000us",
        "MemoryMax=64M",
        "MemorySwapMax=0",
    ]


@pytest.mark.parametrize(
    ("driver", "parent"), [("cgroupfs", f"/homeport/{TASK_ID}"), ("systemd", f"homeport-{TASK_ID}.slice")]
)
def test_docker_is_given_the_parent_in_its_drivers_terms(driver: str, parent: str) -> None:
    assert TaskCgroups(info(driver=driver), docker_host="unix:///d.sock").parent(TASK_ID) == parent


@pytest.mark.parametrize(
    ("engine", "docker_host", "reason"),
    [
        (info(), "tcp://10.0.0.1:2375", "reached over tcp"),
        (info(driver="none"), "unix:///d.sock", "cgroup driver is 'none'"),
        (info(), "unix:///d.sock", "no cgroup v2 tree"),
    ],
)
async def test_where_it_can_not_be_it_says_why(
    engine: EngineInfo, docker_host: str, reason: str, tmp_path: Path
) -> None:
    cgroups = TaskCgroups(engine, docker_host=docker_host, root=tmp_path)
    assert reason in cgroups.reason
    assert await cgroups.ensure(TASK_ID, task()) is None


async def test_a_group_is_made_again_without_harm_and_a_failure_is_not_for_ever(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    cgroups = TaskCgroups(info(), docker_host="unix:///d.sock", root=tmp_path)
    blocker = tmp_path / "homeport"
    blocker.touch()
    assert await cgroups.ensure(TASK_ID, task()) is None
    assert "can't be made" in cgroups.reason
    blocker.unlink()
    for _ in range(2):
        assert await cgroups.ensure(TASK_ID, task()) == f"/homeport/{TASK_ID}"
    assert cgroups.reason == ""
    assert (blocker / TASK_ID / "cpu.max").read_text() == "50000 100000"


async def test_removing_what_is_not_there_is_quiet(tmp_path: Path) -> None:
    for version, driver in (("1", "cgroupfs"), ("2", "cgroupfs"), ("2", "systemd")):
        cgroups = TaskCgroups(info(version, driver), docker_host="unix:///d", root=tmp_path, unit_dir=tmp_path)
        await cgroups.remove(TASK_ID)


async def test_a_slice_is_started_and_stopped_by_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:/usr/bin:/bin")
    (tmp_path / "cgroup.controllers").touch()
    cgroups = TaskCgroups(info(driver="systemd"), docker_host="unix:///d", root=tmp_path, unit_dir=tmp_path)
    name = f"homeport-{TASK_ID}.slice"
    assert await cgroups.ensure(TASK_ID, task()) == name
    assert (tmp_path / name).read_text() == slice_unit(TASK_ID, task())
    await cgroups.remove(TASK_ID)
    assert not (tmp_path / name).exists()
    assert calls.read_text().splitlines() == [f"start {name}", f"stop {name}"]
