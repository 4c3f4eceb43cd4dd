"""Requests near to right ones: no internal error, a refusal changes nothing, and every answer fits the output model."""

from typing import Any, Final

import msgspec
import pytest
from botocore.session import get_session
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from controlplane.api.model import Service, Shape
from controlplane.api.registry import HANDLERS
from controlplane.api.services import load_handlers, load_services
from tests.contract.definitions import FULL_CONTAINER, register
from tests.contract.fleet import Fleet
from tests.contract.fuzz_logs import right_logs_requests
from tests.contract.fuzz_schedules import right_schedule_requests, send_rest
from tests.contract.fuzz_services import right_service_requests
from tests.contract.server import Answer, ApiServer, problems_with_answer

#: For each operation.
EXAMPLES: Final = 15
#: How deep into a shape values are made; deeper lists and structures are empty.
DEPTH: Final = 7

#: Operations that only look.
READING: Final = ("Describe", "List", "Get", "Discover")
#: Where other tests register and report, these would leave nothing to try the rest on.
LAST: Final = (
    "DeleteCluster",
    "DeleteLogGroup",
    "DeleteLogStream",
    "DeleteService",
    "DeleteTaskDefinitions",
    "DeleteTaskSet",
    "DeregisterContainerInstance",
    "DeregisterTaskDefinition",
)

#: What these ask for is never there, or over already.
REFUSING: Final = ("GetQueueUrl", "ListServicesByNamespace", "StopQuery")

#: Their answers go on and on.
STREAMING: Final = ("StartLiveTail",)

#: Texts that one rule or other has an opinion on.
TEXTS: Final = [
    "",
    " ",
    "a" * 300,
    "x:1",
    "web:",
    "web:01",
    "web:99999999999999999999",
    "arn:aws:ecs:eu-home-1:123456789012:cluster/",
    "arn:aws:ecs:::task/x",
    "aws:reserved",
    "ü",
    "\x00",
    "\ud7ff",
    "-1",
    "1 vCPU",
    "0.5 GB",
    "attribute:a == b",
    "not(",
    "CMD",
    "80-90",
]


class World:
    """One of each thing, and the requests that would do something with them."""

    def __init__(self, server: ApiServer) -> None:
        ecs = server.client("ecs")
        fleet = Fleet(server)
        host = fleet.add_host(cpu=10**6, memory=10**6)
        spare = fleet.add_host("spare")
        definition = register(ecs)
        task = ecs.run_task(taskDefinition="web")["tasks"][0]["taskArn"]
        fleet.running(task)
        ended = ecs.run_task(taskDefinition="web")["tasks"][0]["taskArn"]
        fleet.stopped(ended)
        activation = server.client("ssm").create_activation(IamRole="role")["ActivationId"]
        arns = server.context.arns
        token = ecs.list_container_instances(maxResults=1)["nextToken"]
        self.names = [
            *("default", "web", "web:1", "other", host, task, ended, definition, activation, token),
            *(task.rsplit("/")[-1], arns.cluster("default"), arns.container_instance("default", spare)),
        ]
        full = {**FULL_CONTAINER, "links": [], "dependsOn": []}
        attribute = {"name": "rack", "value": "a", "targetId": host, "targetType": "container-instance"}
        override = {"name": "web", "command": ["x"], "environment": [{"name": "A", "value": "1"}], "memory": 32}
        launch = {"taskDefinition": "web:1", "overrides": {"containerOverrides": [override]}}
        tagged = {"resourceArn": task}
        of_services, names = right_service_requests(server, ecs)
        of_logs, tokens = right_logs_requests(server)
        self.names += [*names, *tokens]
        #: Operation, if need be with its service before it -> a request that is served.
        self.right: dict[str, dict[str, Any]] = {
            **of_services,
            **right_schedule_requests(server),
            **of_logs,
            "CreateCluster": {"clusterName": "other"},
            "UpdateCluster": {"cluster": "default"},
            "UpdateClusterSettings": {"cluster": "default", "settings": []},
            "PutClusterCapacityProviders": {
                "cluster": "default",
                "capacityProviders": ["FARGATE"],
                "defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1}],
            },
            "DeleteCluster": {"cluster": "other"},
            "RegisterTaskDefinition": {
                "family": "web",
                "containerDefinitions": [{**full, "volumesFrom": []}],
                "volumes": [{"name": "data", "host": {"sourcePath": "/srv"}}],
            },
            "DescribeTaskDefinition": {"taskDefinition": "web", "include": ["TAGS"]},
            "DeregisterTaskDefinition": {"taskDefinition": "web:1"},
            "DeleteTaskDefinitions": {"taskDefinitions": ["web:1", "web:2"]},
            "RunTask": launch,
            "StartTask": {**launch, "containerInstances": [host, spare]},
            "StopTask": {"task": task},
            "DescribeTasks": {"tasks": [task, ended], "include": ["TAGS"]},
            "DescribeContainerInstances": {
                "containerInstances": [host, spare],
                "include": ["TAGS", "CONTAINER_INSTANCE_HEALTH"],
            },
            "UpdateContainerInstancesState": {"containerInstances": [spare], "status": "DRAINING"},
            "DeregisterContainerInstance": {"containerInstance": spare, "force": True},
            "PutAttributes": {"attributes": [attribute]},
            "DeleteAttributes": {"attributes": [attribute]},
            "ListAttributes": {"targetType": "container-instance"},
            "TagResource": {**tagged, "tags": [{"key": "a", "value": "b"}]},
            "UntagResource": {**tagged, "tagKeys": ["a"]},
            "ListTagsForResource": tagged,
            "PutAccountSetting": {"name": "containerInsights", "value": "enabled"},
            "PutAccountSettingDefault": {"name": "containerInsights", "value": "enabled"},
            "DeleteAccountSetting": {"name": "containerInsights"},
            "CreateActivation": {"IamRole": "role"},
            "DeleteActivation": {"ActivationId": activation},
            "GetQueueUrl": {"QueueName": "q"},
        }

    def value(self, shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
        """A value of the shape's type, more often within its constraints than not."""
        if shape.type == "structure":
            parts = {n: self.value(m, depth + 1) for n, m in shape.members.items()} if depth < DEPTH else {}
            needed = {name: parts[name] for name in shape.required if name in parts}
            # A few members each: with all of them something is always wrong.
            few = st.lists(st.sampled_from(sorted(parts)), max_size=4, unique=True) if parts else st.just([])
            return few.flatmap(lambda names: st.fixed_dictionaries({**needed, **{name: parts[name] for name in names}}))
        if shape.type == "list":
            assert shape.element is not None
            return st.lists(self.value(shape.element, depth + 1), max_size=3) if depth < DEPTH else st.just([])
        if shape.type == "map":
            assert shape.element is not None
            return st.dictionaries(self.text(shape), self.value(shape.element, depth + 1), max_size=2)
        if shape.type == "string":
            return self.text(shape)
        return {
            "integer": st.sampled_from([0, 1, 2, 5, 10, 64, 80]) | st.integers(-(2**31), 2**31 - 1),
            "long": st.integers(-(2**63), 2**63 - 1),
            "boolean": st.booleans(),
            "timestamp": st.integers(0, 4 * 10**9) | st.floats(-1e12, 1e12),
        }.get(shape.type, st.floats(allow_nan=False, allow_infinity=False))

    def text(self, shape: Shape) -> st.SearchStrategy[str]:
        if shape.enum:
            return st.sampled_from([*shape.enum, *shape.enum, "", "NONSENSE"])
        return st.sampled_from(self.names) | st.sampled_from(TEXTS) | st.text(max_size=8)

    def right_of(self, service: str, operation: str) -> dict[str, Any]:
        """A request that is served."""
        return self.right.get(f"{service}.{operation}", self.right.get(operation, {}))

    def requests(self, right: dict[str, Any], shape: Shape | None) -> st.SearchStrategy[Any]:
        """A right request with up to three members put over it, anywhere."""
        if shape is None or not shape.members:
            return st.just(right)
        members = shape.members
        changes = st.lists(st.sampled_from(sorted(members)), max_size=3, unique=True).flatmap(
            lambda names: st.fixed_dictionaries({name: self.value(members[name], 1) for name in names})
        )
        return changes.map(lambda changed: {**right, **changed})


def served(services: tuple[Service, ...]) -> list[tuple[Service, str]]:
    """The served operations that have a model and speak JSON or REST; those that take things away last."""
    by_name = {s.name: s for s in services if s.operations is not None and s.protocol != "query"}
    handled = ((name, operation) for name, operation in sorted(HANDLERS) if operation not in STREAMING)
    found = [(by_name[name], operation) for name, operation in handled if name in by_name]
    return sorted(found, key=lambda item: item[1] in LAST)


def test_requests_near_to_right_ones(server: ApiServer) -> None:
    services = load_services()
    load_handlers(services)
    world = World(server)
    operations = served(services.all)
    assert len(operations) > 55
    for service, operation in operations:
        _fuzz(server, world, service, operation)


def _fuzz(server: ApiServer, world: World, service: Service, operation: str) -> None:
    assert service.operations is not None
    shape = service.operations[operation].input
    model = get_session().get_service_model(service.name).operation_model(operation)

    def send(request: dict[str, Any]) -> Answer:
        if service.protocol == "rest-json":
            return send_rest(server, model, request)
        body = msgspec.json.encode(request)
        return server.post(f"{service.target_prefix}.{operation}", body, service=service.signing_name)

    example = world.right_of(service.name, operation)
    right = send(example)
    assert right.status == 200 or operation in REFUSING, f"the right request is refused: {right.json}"

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(world.requests(example, shape))
    def check(request: dict[str, Any]) -> None:
        before = _standing(server)
        answer = send(request)
        changed = _standing(server) != before
        if answer.status == 200:
            assert problems_with_answer(model, answer.body) == []
            assert not (changed and operation.startswith(READING)), "looking changed something"
        else:
            assert answer.status in (400, 402, 404, 409), answer.body
            assert answer.json["__type"]
            assert answer.json.get("message") or answer.json["Message"]
            assert not changed, "a refusal changed something"

    check()


def _standing(server: ApiServer) -> tuple[Any, ...]:
    """What a change moves."""
    return server.context.state.revision, server.context.logs.groups()


@pytest.mark.parametrize("family", ["web", "w" * 255])
def test_a_description_is_accepted_again_whatever_was_registered(server: ApiServer, family: str) -> None:
    """What DescribeTaskDefinition returns registers again, to the same description."""
    services = load_services()
    load_handlers(services)
    world = World(server)
    ecs = next(service for service in services.all if service.name == "ecs")
    assert ecs.operations is not None
    shape = ecs.operations["RegisterTaskDefinition"].input
    assert shape is not None
    registered = 0

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(world.requests(world.right["RegisterTaskDefinition"], shape))
    def check(request: dict[str, Any]) -> None:
        nonlocal registered
        first = _register(server, {**request, "family": family})
        if first is None:
            return
        registered += 1
        _check_kept(first, {**request, "family": family}, "")
        again = {name: value for name, value in first.items() if name in shape.members}
        second = _register(server, again)
        assert second is not None
        assert {name: second[name] for name in again} == again

    check()
    assert registered


#: Kept in another form: text in units, and ports, which get defaults that depend on the network mode.
REWRITTEN: Final = (".cpu", ".memory", ".tags", ".containerDefinitions.portMappings")


def _check_kept(found: Any, given: Any, path: str) -> None:
    """Everything that was given is found again."""
    if isinstance(given, dict):
        for name, value in given.items():
            if f"{path}.{name}" not in REWRITTEN:
                _check_kept(found[name], value, f"{path}.{name}")
    elif isinstance(given, list):
        assert len(found) == len(given), path
        for number, item in enumerate(given):
            _check_kept(found[number], item, path)
    else:
        assert found == given, path


def _register(server: ApiServer, request: dict[str, Any]) -> dict[str, Any] | None:
    answer = server.post("AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition", msgspec.json.encode(request))
    if answer.status != 200:
        return None
    definition: dict[str, Any] = answer.json["taskDefinition"]
    return definition
