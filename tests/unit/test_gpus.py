"""GPUs, from a definition to the Engine's create body. No test here needs one: the library and the Engine are fakes."""

from pathlib import Path
from typing import Any

import pytest

from agent.claims import Claims
from agent.engine.plan import container_plan
from agent.gpus import read_gpu_ids
from agent.host import HostSettings, Readings, host_facts
from controlplane.api.ecs.units import gpus_of
from controlplane.api.ecs.views import instance_view
from controlplane.api.errors import ClientException
from controlplane.fleet.facts import FactsRefused, check_facts
from homeport.ids import InstanceId, TaskId
from homeport.protocol import ContainerReport, HostFacts
from homeport.spec import Resources
from homeport.status import ContainerStatus, DesiredStatus, TaskStatus
from tests.fakes import nvml
from tests.fakes.agent_host import AgentHost, assignment, container, spec_of
from tests.fakes.clock import MovableClock
from tests.fakes.engine import FakeEngine
from tests.fakes.host import FakeHost
from tests.fakes.records import a_context, a_task, an_instance, put

GPUS = ("GPU-a", "GPU-b", "GPU-c")
CAPACITY = Resources(cpu_units=1024, memory_mib=1000, gpus=3)


# ---------------------------------------------------------------- the host


@pytest.mark.parametrize(
    ("library", "uuids", "found"),
    [
        ("tests.fakes.no_such_library", None, ()),
        ("tests.fakes.nvml", None, ()),
        ("tests.fakes.nvml", [], ()),
        ("tests.fakes.nvml", ["GPU-a", b"GPU-b"], ("GPU-a", "GPU-b")),
        ("tests.fakes.nvml", ["GPU-a", ""], ()),
    ],
)
def test_the_library_says_which_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, library: str, uuids: Any, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(nvml, "uuids", uuids)
    assert read_gpu_ids(library) == found
    assert nvml.opened == 0


def test_a_hosts_facts_count_its_gpus() -> None:
    amounts = dict.fromkeys(("memory_bytes", "memory_available_bytes", "disk_bytes", "disk_free_bytes"), 1 << 30)
    readings = Readings(hostname="box", cores=2, gpu_ids=GPUS, **amounts)
    facts = host_facts(None, readings, HostSettings(), agent_version="1", task_limits=True)
    assert (facts.resources.gpus, facts.gpu_ids) == (3, GPUS)


@pytest.mark.parametrize("ids", [("a", "a"), ("",), ("x" * 256,), tuple(map(str, range(1025)))])
def test_gpu_ids_that_can_not_be(ids: tuple[str, ...]) -> None:
    with pytest.raises(FactsRefused, match="gpu_ids"):
        check_facts(HostFacts(hostname="box", agent_version="1", gpu_ids=ids))


# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("requirements", "count"),
    [
        (None, 0),
        ([], 0),
        ([{"type": "GPU", "value": "2"}], 2),
        ([{"type": "InferenceAccelerator", "value": "device_1"}], 0),
    ],
)
def test_gpus_of_resource_requirements(requirements: Any, count: int) -> None:
    assert gpus_of(requirements, "web") == count


@pytest.mark.parametrize("value", ["0", "-1", "one", "1.5", "", "1025"])
def test_a_number_of_gpus_that_can_not_be(value: str) -> None:
    with pytest.raises(ClientException, match="a number of GPUs from 1 to 1024"):
        gpus_of([{"type": "GPU", "value": value}], "web")


def test_gpus_are_asked_for_once_per_container() -> None:
    with pytest.raises(ClientException, match="can be given once"):
        gpus_of([{"type": "GPU", "value": "1"}, {"type": "GPU", "value": "2"}], "web")


def test_a_task_asks_for_the_gpus_of_all_its_containers() -> None:
    spec = spec_of(container("a", gpus=1), container("b"), container("c", gpus=2))
    assert Resources.of_task(spec).gpus == 3


def test_the_create_body_requests_exactly_the_claimed_gpus() -> None:
    spec = spec_of(container("web", gpus=2, environment={"NVIDIA_VISIBLE_DEVICES": "all", "A": "b"}))
    arguments: dict[str, Any] = {"owner": InstanceId("i"), "cgroup_parent": None}
    body = container_plan(TaskId("t1"), spec, spec.containers[0], gpu_ids=("GPU-b", "GPU-c"), **arguments).body
    assert body["HostConfig"]["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-b", "GPU-c"], "Capabilities": [["gpu"]]}
    ]
    assert body["Env"] == ["NVIDIA_VISIBLE_DEVICES=GPU-b,GPU-c", "A=b"]
    without = container_plan(TaskId("t1"), spec_of(), spec_of().containers[0], **arguments).body
    assert "DeviceRequests" not in without["HostConfig"]


# ---------------------------------------------------------------- who has which


def test_a_claim_is_of_certain_gpus_all_or_none() -> None:
    claims = Claims()
    assert claims.claim(TaskId("a"), Resources(gpus=2), CAPACITY, GPUS) is None
    assert claims.gpus_of(TaskId("a")) == ("GPU-a", "GPU-b")
    assert claims.claim(TaskId("b"), Resources(gpus=2), CAPACITY, GPUS) == "gpu: 2 GPUs asked, 1 of 3 free"
    assert claims.gpus_of(TaskId("b")) == ()
    assert claims.claim(TaskId("c"), Resources(gpus=1), CAPACITY, GPUS) is None
    assert claims.gpus_of(TaskId("c")) == ("GPU-c",)
    claims.release(TaskId("a"))
    assert claims.claim(TaskId("d"), Resources(gpus=1), CAPACITY, GPUS) is None
    assert claims.gpus_of(TaskId("d")) == ("GPU-a",)


def test_gpus_of_a_task_whose_record_was_lost_are_given_to_nobody() -> None:
    claims = Claims()
    claims.hold(TaskId("adopted"), Resources(gpus=2))
    assert claims.claim(TaskId("new"), Resources(gpus=2), CAPACITY, GPUS) == "gpu: 2 GPUs asked, 1 of 3 free"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def engine(clock: MovableClock) -> FakeEngine:
    return FakeEngine(clock, images=["web:1"])


@pytest.fixture
def host(tmp_path: Path, engine: FakeEngine, clock: MovableClock) -> AgentHost:
    host = AgentHost(tmp_path / "agent.db", engine, clock)
    host.host = FakeHost(gpu_ids=GPUS)
    return host


def gpus_in(report: Any) -> list[tuple[str, ...]]:
    return [container.gpu_ids for container in report.containers]


async def test_a_task_keeps_its_gpus_over_a_restart_of_the_agent(host: AgentHost) -> None:
    two = spec_of(container("a", gpus=1), container("b", gpus=1))
    async with host.running():
        await host.assign(assignment(two))
        assert gpus_in(await host.until_status(TaskStatus.RUNNING)) == [("GPU-a",), ("GPU-b",)]
    async with host.running():
        one = spec_of(container("c", gpus=1), task_id="t2")
        big = spec_of(container("d", gpus=2), task_id="t3")
        await host.assign(assignment(two), assignment(big, task_id="t3"), assignment(one, task_id="t2"))
        refused = await host.until_status(TaskStatus.STOPPED, task_id="t3")
        assert refused.stopped_reason is not None
        assert "gpu: 2 GPUs asked, 1 of 3 free" in refused.stopped_reason
        running = await host.until_status(TaskStatus.RUNNING, task_id="t2")
        assert gpus_in(running) == [("GPU-c",)]


async def test_a_prepared_task_is_given_gpus_only_when_it_is_to_run(host: AgentHost, engine: FakeEngine) -> None:
    spec = spec_of(container("web", gpus=3))
    async with host.running():
        await host.assign(assignment(spec), assignment(spec, task_id="t2", desired=DesiredStatus.PENDING))
        await host.until_status(TaskStatus.RUNNING)
        prepared = await host.until(lambda report: report.containers[0].status is ContainerStatus.PULLED, task_id="t2")
        assert gpus_in(prepared) == [()]
        await host.assign(assignment(spec, desired=DesiredStatus.STOPPED))
        await host.until_status(TaskStatus.STOPPED)
        await host.assign(assignment(spec, task_id="t2"))
        assert gpus_in(await host.until_status(TaskStatus.RUNNING, task_id="t2")) == [GPUS]


# ---------------------------------------------------------------- what ECS's clients see


def test_a_host_shows_its_gpus_and_those_that_are_free() -> None:
    context = a_context()
    instance = an_instance("box")
    facts = type(instance.facts)(hostname="box", agent_version="1", resources=CAPACITY, gpu_ids=GPUS)
    instance = type(instance)(id=instance.id, cluster="default", public_key="", registered_at=1.0, facts=facts)
    held = ContainerReport(name="web", status=ContainerStatus.RUNNING, gpu_ids=("GPU-b",))
    put(
        context,
        instance,
        a_task("t1", instance_id=instance.id, resources=Resources(gpus=1), containers=(held,)),
    )
    view = instance_view(context, instance, tags=False)

    def gpus(member: str) -> list[str]:
        (entry,) = (entry for entry in view[member] if entry["name"] == "GPU")
        values: list[str] = entry["stringSetValue"]
        return values

    assert gpus("registeredResources") == list(GPUS)
    assert gpus("remainingResources") == ["GPU-a", "GPU-c"]
    put(context, a_task("t2", instance_id=instance.id, resources=Resources(gpus=1)))
    view = instance_view(context, instance, tags=False)
    assert gpus("remainingResources") == ["GPU-a"], "one more is promised, though not yet which"
