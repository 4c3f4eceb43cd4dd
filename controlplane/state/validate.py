"""What must hold of the whole state at every moment, for tests and the simulator: costs a scan of everything."""

from controlplane.state.load import HostLoad, LoadBook
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import ServiceRecord
from controlplane.state.state import State
from controlplane.store.api import Commit
from homeport.ids import InstanceId
from homeport.status import DesiredStatus, TaskStatus

__all__ = ["validate", "validate_commit", "validate_service", "validate_task"]


def validate(state: State) -> None:
    """Raise AssertionError unless all indexes and sums are right and invariants 2 to 4 hold.

    Invariant 4 is checked against what hosts have at present: not to be called after a host's capacity has shrunk.
    """
    for table in state.tables:
        table.validate()
    for task in state.tasks:
        validate_task(task)
    loads = naive_loads(state)
    for instance_id in loads.keys() | {instance.id for instance in state.instances}:
        expected = loads.get(instance_id, HostLoad())
        found = state.load.of(instance_id)
        assert found == expected, f"the load of {instance_id} is kept as {found}, but is {expected}"
    for instance in state.instances:
        _validate_capacity(instance, state.load)
    for service in state.services:
        validate_service(state, service)


def validate_commit(commit: Commit) -> None:
    """Raise AssertionError unless every task change in the commit is one that invariants 2 and 3 allow."""
    for change in commit.changes:
        old, new = change.old, change.new
        assert old != new, f"the commit of revision {commit.revision} has a change of {change.key} that changes nothing"
        if isinstance(old, TaskRecord) and isinstance(new, TaskRecord):
            assert new.status >= old.status, f"task {new.id} went back from {old.status.name} to {new.status.name}"
            assert new.desired >= old.desired, f"task {new.id}: desired went back to {new.desired.name}"
            assert new.reported_seq >= old.reported_seq, f"task {new.id}: an old report was applied"
            assert old.instance_id in {None, new.instance_id}, f"task {new.id} changed its host"
            assert (new.cluster, new.spec, new.created_at) == (old.cluster, old.spec, old.created_at), (
                f"task {new.id} changed its identity"
            )
            assert old.stop_code is None or new.stop_code == old.stop_code, f"task {new.id}: the first stopCode wins"


def validate_service(state: State, service: ServiceRecord) -> None:
    """Raise AssertionError unless what a service names is there, is its own and is named once; INACTIVE has nothing."""
    live = service.deployments
    assert len(set(live)) == len(live), f"service {service.key} names a deployment twice"
    for deployment_id in live:
        deployment = state.deployments.get(deployment_id)
        assert deployment is not None, f"service {service.key} names {deployment_id}, which isn't there"
        assert deployment.service_id == service.id, f"service {service.key} names another's {deployment_id}"
        assert deployment.revision in state.revisions, f"deployment {deployment_id} has no revision"
    if service.status == "INACTIVE":
        assert not live, f"service {service.key} is INACTIVE, but {live[0]} is live"


def naive_loads(state: State) -> dict[InstanceId, HostLoad]:
    """Sum up what the tasks of each host hold, without the LoadBook."""
    loads: dict[InstanceId, HostLoad] = {}
    for task in state.tasks:
        if task.instance_id is None or task.status is TaskStatus.STOPPED:
            continue
        load = loads.setdefault(task.instance_id, HostLoad())
        load.cpu_units += task.resources.cpu_units
        load.memory_mib += task.resources.memory_mib
        load.gpus += task.resources.gpus
        load.tasks += 1
        for port in task.resources.ports:
            load.ports[port] += 1
        if task.desired is not DesiredStatus.STOPPED:
            load.groups[task.group] += 1
    return loads


def validate_task(task: TaskRecord) -> None:
    """Raise AssertionError unless what a task says of itself agrees."""
    if task.instance_id is None:
        assert task.status in {TaskStatus.PROVISIONING, TaskStatus.STOPPED}, (
            f"task {task.id} is {task.status.name} without a host"
        )
    if task.status > TaskStatus.RUNNING:
        assert task.desired is DesiredStatus.STOPPED, f"task {task.id} is {task.status.name}, desired otherwise"
    if task.status is TaskStatus.STOPPED:
        assert task.stopped_at is not None, f"task {task.id} is STOPPED without a time"


def _validate_capacity(instance: InstanceRecord, book: LoadBook) -> None:
    has, load = instance.facts.resources, book.of(instance.id)
    for what, held, total in (
        ("CPU units", load.cpu_units, has.cpu_units),
        ("MiB of memory", load.memory_mib, has.memory_mib),
        ("GPUs", load.gpus, has.gpus),
    ):
        assert held <= total, f"host {instance.id} is over-committed: {held} of {total} {what}"
    doubled = [port for port, holders in load.ports.items() if holders > 1 or port in has.ports]
    assert not doubled, f"host {instance.id} has ports given twice: {doubled}"
