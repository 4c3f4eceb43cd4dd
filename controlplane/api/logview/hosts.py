"""How a task and its host are, as far as reading logs is concerned."""

from controlplane.context import Context
from controlplane.state.records import TaskRecord
from homeport.clock import iso_time
from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus, TaskStatus

__all__ = ["away", "connected", "host_name", "present", "report_of", "stopped"]


def present(context: Context, task: TaskRecord) -> TaskRecord:
    """Return the task as it is now; as it was last if it has left memory."""
    return context.state.tasks.get(task.id) or task


def stopped(context: Context, task: TaskRecord, container: str | None = None) -> bool:
    """Tell whether a task (or a container of it) has stopped for good."""
    now = present(context, task)
    if now.status is TaskStatus.STOPPED or now.key not in context.state.tasks:
        return True
    report = None if container is None else report_of(now, container)
    return report is not None and report.status is ContainerStatus.STOPPED


def report_of(task: TaskRecord, container: str) -> ContainerReport | None:
    """Return what was last reported of a container; None if nothing was."""
    return next((report for report in task.containers if report.name == container), None)


def connected(context: Context, task: TaskRecord) -> bool:
    """Tell whether a task's host has a session."""
    instance_id = present(context, task).instance_id
    return instance_id is not None and context.state.presence.connected(instance_id)


def host_name(context: Context, task: TaskRecord) -> str:
    """Return the name of a task's host, or its id."""
    instance_id = present(context, task).instance_id
    instance = None if instance_id is None else context.state.instances.get(instance_id)
    return instance_id or "" if instance is None else instance.facts.hostname


def away(context: Context, task: TaskRecord) -> str:
    """Say that a task's host can't send now, and since when; "" if it can."""
    instance_id = present(context, task).instance_id
    if instance_id is None or context.state.presence.connected(instance_id):
        return ""
    instance = context.state.instances.get(instance_id)
    name = host_name(context, task)
    if instance is None or instance.status == "INACTIVE":
        return f"the host {name} has left the cluster: what it hadn't sent won't come"
    presence = context.state.presence.of(instance_id)
    since = "" if presence is None else f" since {iso_time(presence.since)}"
    return f"the host {name} is not connected{since}; what it hadn't sent will come when it is back"
