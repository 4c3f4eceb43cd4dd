"""Every verb of the Engine seam on a real Docker Engine."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.engine.api import Engine
from agent.engine.docker import DockerEngine
from agent.engine.errors import Conflict, Rejected
from agent.engine.plan import container_plan, volume_plans
from homeport.spec import HealthCheck, LogConfiguration, Mount, Volume
from homeport.status import HealthStatus
from tests.engine.cases import CASES, collect
from tests.engine.conftest import DEADLINE_S, Lab

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.__name__))
async def test_it_keeps_the_seams_promises(lab: Lab, case: Callable[[Lab], Awaitable[None]]) -> None:
    await case(lab)


async def test_info_says_what_the_engine_is(engine: DockerEngine) -> None:
    seam: Engine = engine
    info = await seam.info()
    assert info.os_type == "linux"
    assert "json-file" in info.log_drivers
    assert info.api_version.startswith("1.")


async def test_an_image_is_found(lab: Lab) -> None:
    found = await lab.engine.image(lab.image)
    assert found is not None
    assert found.image_id.startswith("sha256:")
    assert found.digest is None, "an imported image was never in a registry"


async def test_a_program_that_is_not_there_is_refused_and_the_text_is_kept(lab: Lab) -> None:
    container_id = await lab.engine.create(lab.plan("/no/such/program"))
    with pytest.raises(Rejected, match="no such file or directory"):
        await lab.engine.start(container_id)
    facts = await lab.inspect(container_id)
    assert facts.state == "created"
    assert facts.exit_code is None
    assert "no such file or directory" in facts.error


async def test_a_container_that_obeys_ends_with_its_own_exit_code(lab: Lab) -> None:
    container_id = await lab.start("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done")
    lines = lab.engine.logs(container_id, follow=True)
    assert (await anext(aiter(lines))).text == "ready"
    await lab.engine.stop(container_id, 30)
    assert (await lab.inspect(container_id)).exit_code == 7


async def test_health_is_told_as_it_changes(lab: Lab) -> None:
    check = HealthCheck(command=("CMD-SHELL", "echo looking; test -e /tmp/well"), interval_s=1, retries=1)
    events = lab.engine.events(lab.labels)
    container_id = await lab.start("sh", "-c", "sleep 2; touch /tmp/well; sleep 1000", health_check=check)
    assert (await lab.inspect(container_id)).health in (HealthStatus.UNKNOWN, HealthStatus.UNHEALTHY)
    seen = []
    async with asyncio.timeout(DEADLINE_S):
        while HealthStatus.HEALTHY not in seen:
            await collect(events, "health")
            facts = await lab.inspect(container_id)
            seen.append(facts.health)
    assert facts.health_output == "looking\n"


async def test_volumes_are_shared_within_a_task_and_removed_quietly(lab: Lab, tmp_path: Path) -> None:
    volumes = (Volume(name="data"), Volume(name="host", host_path=str(tmp_path)))
    mounts = (Mount(volume="data", container_path="/data"), Mount(volume="host", container_path="/host"))
    writer = lab.container("writer", "sh", "-c", "echo kept > /data/file; echo seen > /host/file", mounts=mounts)
    reading = (Mount(volume="data", container_path="/data", read_only=True),)
    reader = lab.container("reader", "sh", "-c", "cat /data/file; ! touch /data/new 2>/tmp/refusal", mounts=reading)
    task = lab.task(writer, reader, volumes=volumes)
    task_id = lab.task_id()
    (plan,) = volume_plans(task_id, task, owner=lab.owner)
    await lab.make_volumes(task_id, task)
    await lab.make_volumes(task_id, task)
    assert await lab.engine.volume_exists(plan.name)
    for container in (writer, reader):
        container_id = await lab.engine.create(
            container_plan(task_id, task, container, owner=lab.owner, cgroup_parent=None)
        )
        await lab.engine.start(container_id)
        assert (await lab.exited(container_id)).exit_code == 0
    assert await lab.output(container_id) == "kept\n"
    assert (tmp_path / "file").read_text() == "seen\n"
    with pytest.raises(Conflict, match="in use"):
        await lab.engine.remove_volume(plan.name)
    await lab.close()
    await lab.engine.remove_volume(plan.name)
    await lab.engine.remove_volume(plan.name)
    assert not await lab.engine.volume_exists(plan.name)


async def test_logs_have_streams_times_and_order(lab: Lab) -> None:
    container_id = await lab.start("sh", "-c", "echo one; echo two >&2; printf three")
    facts = await lab.exited(container_id)
    lines = [line async for line in lab.engine.logs(container_id)]
    assert sorted((line.stream, line.text) for line in lines) == [
        ("stderr", "two"),
        ("stdout", "one"),
        ("stdout", "three"),
    ]
    assert facts.started_at is not None
    assert all(abs(line.at - facts.started_at) < 10 for line in lines)
    assert [line.text async for line in lab.engine.logs(container_id, tail=1)] == [lines[-1].text]
    later = [line.text async for line in lab.engine.logs(container_id, since=lines[0].at)]
    assert later == [line.text for line in lines if line.at > lines[0].at]


async def test_a_long_line_stays_one(lab: Lab) -> None:
    container_id = await lab.start("sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x; echo; echo end")
    await lab.exited(container_id)
    lines = [line.text async for line in lab.engine.logs(container_id)]
    assert [len(line) for line in lines] == [50000, 3]
    assert set(lines[0]) == {"x"}


async def test_a_terminals_log_is_read_too(lab: Lab) -> None:
    container_id = await lab.start("sh", "-c", "echo one; echo two >&2", pseudo_terminal=True)
    await lab.exited(container_id)
    assert [(line.stream, line.text) async for line in lab.engine.logs(container_id)] == [
        ("stdout", "one"),
        ("stdout", "two"),
    ]


async def test_a_log_is_followed_until_the_container_stops(lab: Lab) -> None:
    container_id = await lab.start("sh", "-c", "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.1; done")
    lines = aiter(lab.engine.logs(container_id, follow=True))
    assert (await anext(lines)).text == "hello"
    await lab.engine.stop(container_id, 30)
    async with asyncio.timeout(DEADLINE_S):
        assert [line.text async for line in lines] == ["bye"]


async def test_a_log_that_is_not_kept_can_not_be_read(lab: Lab) -> None:
    container_id = await lab.start(log=LogConfiguration(driver="none"))
    with pytest.raises(Rejected, match="does not support reading"):
        await anext(aiter(lab.engine.logs(container_id)))


async def test_what_a_definition_says_arrives_in_the_container(lab: Lab) -> None:
    output = await lab.run(
        "-c",
        'echo "$GREETING|$(pwd)|$(hostname)|$(id -u)|$(ulimit -n)|$(touch /x 2>&1)|$0"',
        "zero",
        entry_point=("sh",),
        environment={"GREETING": "hi there"},
        working_directory="/tmp",
        hostname="box",
        user="1234",
        read_only_root=True,
    )
    assert output == "hi there|/tmp|box|1234|" + output.split("|")[4] + "|touch: /x: Read-only file system|zero\n"
