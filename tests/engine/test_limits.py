"""Limits are real: what a task definition grants is what the kernel gives."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.cgroups import TaskCgroups
from agent.engine.plan import container_plan
from agent.usage import read_usage
from homeport.ids import TaskId
from homeport.spec import TaskSpec, Ulimit
from tests.engine.conftest import DEADLINE_S, Lab

pytestmark = pytest.mark.engine

MIB = 1024 * 1024
#: The container's first process fills `$1` MiB and then waits for ever, writing to a pipe that nobody reads.
HOG = "mkfifo /tmp/pipe; sleep 1000 </tmp/pipe & exec dd if=/dev/zero of=/tmp/pipe bs=${1}M"


@pytest.fixture
async def cgroups(lab: Lab) -> TaskCgroups:
    return TaskCgroups(await lab.engine.info(), docker_host=lab.engine.docker_host)


async def start_task(lab: Lab, cgroups: TaskCgroups, task: TaskSpec) -> tuple[TaskId, list[str]]:
    """Start all containers of a task under its own cgroup, as the agent does."""
    task_id = lab.task_id()
    parent = await cgroups.ensure(task_id, task)
    assert parent is not None, cgroups.reason
    ids = []
    for container in task.containers:
        plan = container_plan(task_id, task, container, owner=lab.owner, cgroup_parent=parent)
        ids.append(await lab.engine.create(plan))
        await lab.engine.start(ids[-1])
    return task_id, ids


async def cpu_used(pids: list[int], seconds: float) -> float:
    """Return how many cores processes' containers used over an interval."""

    def used() -> float:
        return sum(read_usage(pid).cpu_seconds or 0.0 for pid in pids)

    loop = asyncio.get_running_loop()
    before, began = used(), loop.time()
    await asyncio.sleep(seconds)
    return (used() - before) / (loop.time() - began)


async def test_a_container_above_its_memory_is_killed_and_that_is_seen(lab: Lab) -> None:
    container_id = await lab.start("sh", "-c", HOG, "hog", "64", memory_mib=16)
    events = lab.engine.events(lab.labels)
    facts = await lab.exited(container_id)
    assert facts.oom_killed
    assert facts.exit_code == 137
    assert (await anext(events)).kind == "resync"


async def test_a_containers_memory_and_shares_are_those_of_its_definition(lab: Lab) -> None:
    container_id = await lab.start(
        memory_mib=32, memory_reservation_mib=16, cpu_units=512, ulimits=(Ulimit(name="nofile", soft=1000, hard=2000),)
    )
    facts = await lab.inspect(container_id)
    usage = read_usage(facts.pid)
    assert usage.memory_limit_bytes == 32 * MIB
    assert "1000" in Path(f"/proc/{facts.pid}/limits").read_text().split("Max open files")[1].split("\n")[0]


@pytest.fixture
async def task_of_two(lab: Lab, cgroups: TaskCgroups) -> AsyncIterator[tuple[TaskId, list[int]]]:
    """Two containers that burn CPU, in a task of a quarter of a core."""
    burn = ("sh", "-c", "while :; do :; done")
    task = lab.task(lab.container("a", *burn), lab.container("b", *burn), cpu_units=256, memory_mib=64)
    task_id, ids = await start_task(lab, cgroups, task)
    yield task_id, [(await lab.inspect(container_id)).pid for container_id in ids]
    await lab.close()
    await cgroups.remove(task_id)


async def test_a_tasks_cpu_is_a_hard_limit_over_its_containers(task_of_two: tuple[TaskId, list[int]]) -> None:
    _, pids = task_of_two
    used = await cpu_used(pids, 2)
    assert 0.15 < used < 0.30, f"two busy containers with a quarter of a core used {used:.2f} cores"


async def test_a_tasks_memory_is_a_hard_limit_over_its_containers(lab: Lab, cgroups: TaskCgroups) -> None:
    hog = ("sh", "-c", HOG, "hog", "16")
    task = lab.task(*(lab.container(name, *hog, memory_mib=64) for name in ("a", "b", "c")), memory_mib=40)
    task_id, ids = await start_task(lab, cgroups, task)
    try:
        # Each has room enough of its own, but only two fit.
        async with asyncio.timeout(DEADLINE_S):
            async for _ in lab.engine.events(lab.labels):
                if "exited" in [(await lab.inspect(container_id)).state for container_id in ids]:
                    break
    finally:
        await lab.close()
        await cgroups.remove(task_id)


async def test_only_the_one_that_was_killed_ran_out_of_memory(lab: Lab, cgroups: TaskCgroups) -> None:
    quiet = lab.container("quiet", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    task = lab.task(quiet, lab.container("hog", "sh", "-c", HOG, "hog", "64"), memory_mib=32)
    task_id, (quiet_id, hog_id) = await start_task(lab, cgroups, task)
    try:
        assert (await lab.exited(hog_id)).oom_killed
        await lab.engine.stop(quiet_id, 30)
        facts = await lab.inspect(quiet_id)
        assert (facts.exit_code, facts.oom_killed) == (0, False)
    finally:
        await lab.close()
        await cgroups.remove(task_id)


async def test_a_container_without_a_limit_sees_its_tasks(lab: Lab, cgroups: TaskCgroups) -> None:
    task_id, ids = await start_task(lab, cgroups, lab.task(lab.container(), memory_mib=48))
    try:
        assert read_usage((await lab.inspect(ids[0])).pid).memory_limit_bytes == 48 * MIB
    finally:
        await lab.close()
        await cgroups.remove(task_id)


async def test_a_tasks_cgroup_leaves_nothing_behind(lab: Lab, cgroups: TaskCgroups) -> None:
    task = lab.task(lab.container(), cpu_units=256, memory_mib=64)
    task_id, ids = await start_task(lab, cgroups, task)
    assert await cgroups.ensure(task_id, task) == cgroups.parent(task_id), "it may be made again while it is used"
    assert list(Path("/sys/fs/cgroup").glob(f"**/{task_id}*"))
    await lab.engine.remove(ids[0])
    await cgroups.remove(task_id)
    await cgroups.remove(task_id)
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{task_id}*"))


async def test_without_a_cgroup_a_tasks_cpu_holds_each_container(lab: Lab) -> None:
    container_id = await lab.start("sh", "-c", "while :; do :; done", task={"cpu_units": 256, "memory_mib": 64})
    pid = (await lab.inspect(container_id)).pid
    used = await cpu_used([pid], 2)
    assert 0.15 < used < 0.30
    usage = read_usage(pid)
    assert usage.memory_limit_bytes == 64 * MIB
    assert usage.cpu_throttled_periods
    assert usage.cpu_throttled_seconds


async def test_network_bytes_are_the_containers_own(lab: Lab) -> None:
    bridged = await lab.start(task={"network_mode": "bridge"})
    usage = read_usage((await lab.inspect(bridged)).pid)
    assert usage.network_received_bytes is not None
    assert usage.network_transmitted_bytes is not None
    hosts = await lab.start(task={"network_mode": "host"})
    assert read_usage((await lab.inspect(hosts)).pid).network_received_bytes is None
