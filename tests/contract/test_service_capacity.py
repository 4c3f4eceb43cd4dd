"""A service's capacity provider strategy: base and weights over groups of hosts, kept also when hosts and tasks go."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controlplane.fleet.reports import apply_report
from controlplane.services.loop import ServiceLoop
from homeport.ids import InstanceId
from homeport.protocol import TaskReport
from homeport.status import StopCode, TaskStatus
from tests.contract.fleet import Fleet, register_web
from tests.contract.server import ApiServer

ASG = {"autoScalingGroupArn": "any"}


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


@pytest.fixture(autouse=True)
def reconciler(server: ApiServer) -> Iterator[None]:
    running = asyncio.run_coroutine_threadsafe(ServiceLoop(server.context).run(), server.thread.loop)
    yield
    assert not running.done(), running.exception()
    running.cancel()


def eventually(server: ApiServer, check: Callable[[], Any]) -> Any:
    """Return what `check` returns once it is true, looking again whenever the server's loop has turned."""

    async def wait() -> Any:
        async with asyncio.timeout(5):
            while not (found := check()):  # noqa: ASYNC110 - it looks at plain values, which tell nobody
                await asyncio.sleep(0.005)
            return found

    return server.thread.call(wait)


def mark(ecs: Any, host: InstanceId, name: str, value: str) -> None:
    target = {"targetId": host, "targetType": "container-instance"}
    ecs.put_attributes(attributes=[{"name": name, "value": value, **target}])


def shares(server: ApiServer) -> Counter[tuple[str, str]]:
    """Count the service's live tasks by (provider, host name)."""
    state = server.context.state
    names = {instance.id: instance.facts.hostname for instance in state.instances}
    return Counter(
        (task.capacity_provider, names[task.instance_id])
        for task in state.tasks.where("service", ("default", "service:web"))
        if task.status is not TaskStatus.STOPPED and task.instance_id is not None
    )


def create(ecs: Any, desired: int, *strategy: dict[str, Any]) -> None:
    ecs.create_service(
        serviceName="web", taskDefinition="web", desiredCount=desired, capacityProviderStrategy=list(strategy)
    )


def test_base_and_weights_hold_and_are_restored(server: ApiServer, fleet: Fleet, ecs: Any) -> None:
    register_web(ecs)
    for name in ("own", "spare"):
        ecs.create_capacity_provider(name=name, autoScalingGroupProvider=ASG)
        mark(ecs, fleet.add_host(f"host-{name}"), "homeport.capacity-provider", name)
    ecs.put_cluster_capacity_providers(
        cluster="default", capacityProviders=["own", "spare"], defaultCapacityProviderStrategy=[]
    )
    own = {"capacityProvider": "own", "base": 1, "weight": 1}
    create(ecs, 5, own, {"capacityProvider": "spare", "weight": 1})
    expected = {("own", "host-own"): 3, ("spare", "host-spare"): 2}
    eventually(server, lambda: shares(server) == expected)
    state = server.context.state
    gone = next(task for task in state.tasks if task.capacity_provider == "own")
    report = TaskReport(
        task_id=gone.id,
        seq=gone.reported_seq + 1,
        status=TaskStatus.STOPPED,
        stopped_at=server.context.clock.now(),
        stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED,
    )
    assert gone.instance_id is not None
    instance_id = gone.instance_id
    server.call(lambda: apply_report(server.context, instance_id, report))
    eventually(server, lambda: shares(server) == expected)
    arns = ecs.list_tasks(serviceName="web")["taskArns"]
    assert {task["launchType"] for task in ecs.describe_tasks(tasks=arns)["tasks"]} == {"EC2"}


def test_a_service_on_fargate_spot_waits_for_a_host_that_is_marked(server: ApiServer, fleet: Fleet, ecs: Any) -> None:
    register_web(ecs)
    host = fleet.add_host("box")
    create(ecs, 1, {"capacityProvider": "FARGATE_SPOT", "weight": 1})
    (event,) = eventually(server, lambda: list(server.context.state.events))
    assert event.message == (
        "(service web) was unable to place a task because no container instance met all of its requirements. "
        "Reason: No Container Instances were found in your capacity provider. "
        "The only host isn't of the capacity provider."
    )
    mark(ecs, host, "homeport.preemptible", "true")
    eventually(server, lambda: shares(server) == {("FARGATE_SPOT", "box"): 1})


def test_a_provider_in_use_stays_with_its_cluster(server: ApiServer, fleet: Fleet, ecs: Any) -> None:
    register_web(ecs)
    ecs.create_capacity_provider(name="own", autoScalingGroupProvider=ASG)
    providers: dict[str, Any] = {"cluster": "default", "defaultCapacityProviderStrategy": []}
    ecs.put_cluster_capacity_providers(capacityProviders=["own"], **providers)
    create(ecs, 0, {"capacityProvider": "own", "weight": 1})
    with pytest.raises(ecs.exceptions.ResourceInUseException, match="service web uses own"):
        ecs.put_cluster_capacity_providers(capacityProviders=[], **providers)
    ecs.delete_service(service="web", force=True)
    eventually(server, lambda: server.context.state.services.count("cluster_status", ("default", "INACTIVE")))
    ecs.put_cluster_capacity_providers(capacityProviders=[], **providers)
    assert ecs.delete_capacity_provider(capacityProvider="own")["capacityProvider"]["status"] == "INACTIVE"
