"""Whatever the body: no operation of any service answers with an internal error, and every refusal has a name."""

from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.api.model import Service, Shape
from controlplane.api.registry import HANDLERS
from controlplane.api.services import load_handlers, load_services
from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.server import ApiServer

#: How deep into a shape values are made to fit; below, anything goes.
DEPTH: Final = 5
EXAMPLES: Final = 150

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
#: Members that our own service, which has no model, knows.
OWN_MEMBERS = (
    "task",
    "prefix",
    "cluster",
    "node",
    "container",
    "count",
    "expiresInS",
    "stopped",
    "nextToken",
    "maxResults",
)


@pytest.fixture
def names(server: ApiServer) -> list[str]:
    """Names of things that there are, and of some that there aren't."""
    host = Fleet(server).add_host(cpu=10**6, memory=10**6)
    arns = server.context.arns
    ecs = server.client("ecs")
    definition = register(ecs)
    task = ecs.run_task(taskDefinition="web")["tasks"][0]["taskArn"]
    activation = server.client("ssm").create_activation(IamRole="role")["ActivationId"]
    there = [host, task, definition, task.rsplit("/")[-1], arns.cluster("default"), activation]
    return ["", "default", "web", "web:1", "1", "arn:aws:ecs:a:b:c/d", *there]


def fitting(shape: Shape, names: list[str], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values with the members of a shape, and of the right type, or near it."""
    if depth > DEPTH:
        return ANY
    if shape.type == "structure":
        parts = {name: fitting(member, names, depth + 1) for name, member in shape.members.items()}
        return st.fixed_dictionaries(
            {name: parts[name] for name in shape.required},
            optional={name: part for name, part in parts.items() if name not in shape.required},
        )
    if shape.type == "list":
        assert shape.element is not None
        return st.lists(fitting(shape.element, names, depth + 1), max_size=2)
    return {
        "string": st.sampled_from([*shape.enum, *names]) | st.text(max_size=8),
        "integer": st.integers(-2, 70000),
        "boolean": st.booleans(),
        "timestamp": st.floats(0, 4e9) | st.floats(),
    }.get(shape.type, ANY)


def documents(service: Service, operation: str, names: list[str]) -> st.SearchStrategy[Any]:
    """Requests that come near to being right."""
    if service.operations is None:
        value = ANY | st.sampled_from(names)
        return st.dictionaries(st.sampled_from(OWN_MEMBERS), value, max_size=4)
    shape = service.operations[operation].input
    return st.just({}) if shape is None else fitting(shape, names)


@pytest.mark.parametrize("kind", ["bytes", "json", "fitting"])
def test_no_body_makes_an_internal_error(server: ApiServer, names: list[str], kind: str) -> None:
    services = load_services()
    load_handlers(services)
    served = {(s.name, o): s for s in services.all for of, o in HANDLERS if of == s.name and s.protocol == "json"}
    assert len(served) > 40

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        (name, operation), service = data.draw(st.sampled_from(sorted(served.items(), key=lambda item: item[0])))
        bodies = {
            "bytes": st.binary(max_size=64),
            "json": ANY.map(msgspec.json.encode),
            "fitting": documents(service, operation, names).map(msgspec.json.encode),
        }
        body = data.draw(bodies[kind])
        answer = server.post(f"{service.target_prefix}.{operation}", body, service=service.signing_name)
        assert answer.status < 500, name
        assert answer.status == 200 or (answer.json["__type"] and answer.json["message"])

    check()
