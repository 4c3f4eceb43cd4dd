"""Records and contexts for tests of decisions: whatever a test doesn't say is harmless."""

import random
from typing import Any

from controlplane.api.ecs.task_spec import spec_of, spec_template
from controlplane.context import Context, Endpoints
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord, TaskDefinitionRecord, TaskRecord
from controlplane.state.state import State
from homeport.arn import ArnFactory
from homeport.clock import Clock
from homeport.ids import InstanceId, TaskId
from homeport.protocol import HostFacts
from homeport.spec import ContainerSpec, Protocol, Resources, TaskSpec
from tests.fakes.clock import ManualClock
from tests.fakes.journal import MemoryJournal
from tests.fakes.log_store import MemoryLogStore

__all__ = ["a_context", "a_definition", "a_spec", "a_task", "an_instance", "connect", "put"]

ARNS = ArnFactory("eu-home-1", "123456789012")


def a_context(clock: Clock | None = None, *, seed: int = 1) -> Context:
    """A context on an empty state behind a journal in memory."""
    clock = clock or ManualClock()
    return Context(
        state=State(MemoryJournal(clock=clock)),
        clock=clock,
        random=random.Random(seed),
        arns=ARNS,
        endpoints=Endpoints(local_url="http://127.0.0.1:6180", network_url=None, ca_hash=None),
        logs=MemoryLogStore(),
    )


def put(context: Context, *records: Any) -> None:
    """Put records in one transaction."""
    with context.state.transaction() as transaction:
        for record in records:
            transaction.put(record)


def connect(context: Context, *instances: InstanceRecord) -> None:
    """Mark hosts as connected."""
    for instance in instances:
        context.state.presence.put(instance.id, Presence(connected=True, since=1.0, last_seen_at=1.0))


def an_instance(
    name: str,
    *,
    cpu: int = 4096,
    memory: int = 8192,
    ports: frozenset[tuple[Protocol, int]] = frozenset(),
    attributes: dict[str, str] | None = None,
    **members: Any,
) -> InstanceRecord:
    """A host; its id is its name."""
    facts = HostFacts(
        hostname=name,
        agent_version="1.2.3",
        resources=Resources(cpu_units=cpu, memory_mib=memory, ports=ports),
        attributes=attributes or {},
    )
    defaults: dict[str, Any] = {"cluster": "default", "public_key": name, "registered_at": 1_700_000_000.0}
    return InstanceRecord(id=InstanceId(name), facts=facts, **{**defaults, **members})


def a_task(name: str, *, family: str = "web", revision: int = 1, **members: Any) -> TaskRecord:
    """A task; its id is its name."""
    spec = TaskSpec(
        task_arn=ARNS.task("default", name),
        cluster="default",
        family=family,
        revision=revision,
        containers=(ContainerSpec(name="web", image="busybox", container_arn="c"),),
    )
    defaults: dict[str, Any] = {"cluster": "default", "created_at": 1.0, "launch_type": "EC2"}
    return TaskRecord(id=TaskId(name), spec=spec, **{**defaults, **members})


def a_definition(*containers: dict[str, Any], family: str = "web", revision: int = 1, **members: Any) -> Any:
    """A definition with `members` in its document; without containers it has one."""
    document = {
        "family": family,
        "containerDefinitions": list(containers) or [{"name": "web", "image": "busybox", "memory": 64}],
        **members,
    }
    return TaskDefinitionRecord(
        family=family, revision=revision, document=document, registered_at=1.0, registered_by="me"
    )


def a_spec(definition: TaskDefinitionRecord, overrides: dict[str, Any] | None = None) -> TaskSpec:
    """The spec of task `t` in cluster `c` and group `g`; its containers' ids are id-0, id-1 and so on."""
    template = spec_template(definition, overrides or {}, cluster="c", group="g").spec
    ids = [f"id-{number}" for number in range(len(template.containers))]
    return spec_of(template, arns=ARNS, task_id=TaskId("t"), container_ids=ids)
