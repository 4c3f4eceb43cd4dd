"""What Homeport's own operations answer with: tasks, hosts and stories as documents. Times are epoch seconds.

These shapes are what `homeport ... --json` prints, so members are only ever added.
"""

from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord, TaskRecord
from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus
from homeport.story import StoryLine

__all__ = ["host_name", "node_view", "story_line_view", "task_view"]


def host_name(context: Context, task: TaskRecord) -> str | None:
    """Return the name of the host a task is on; None if it has none, or the host is forgotten."""
    instance = None if task.instance_id is None else context.state.instances.get(task.instance_id)
    return None if instance is None else instance.facts.hostname


def task_view(context: Context, task: TaskRecord, *, archived: bool = False) -> Document:
    """Render a task. `archived`: it has left memory, and ECS's operations no longer know it."""
    reports = {report.name: report for report in task.containers}
    return {
        "id": task.id,
        "taskArn": context.arns.task(task.cluster, task.id),
        "cluster": task.cluster,
        "taskDefinition": f"{task.spec.family}:{task.spec.revision}",
        "group": task.group,
        "startedBy": task.started_by,
        "lastStatus": task.status.name,
        "desiredStatus": task.desired.name,
        "health": task.health.value,
        "node": task.instance_id,
        "hostname": host_name(context, task),
        "createdAt": task.created_at,
        "startedAt": task.started_at,
        "stoppedAt": task.stopped_at,
        "stopCode": None if task.stop_code is None else task.stop_code.value,
        "stoppedReason": task.stopped_reason,
        "archived": archived,
        "containers": [_container_view(spec.name, spec.image, reports.get(spec.name)) for spec in task.spec.containers],
    }


def _container_view(name: str, image: str, report: ContainerReport | None) -> Document:
    if report is None:
        report = ContainerReport(name=name, status=ContainerStatus.PENDING)
    return {
        "name": name,
        "image": image,
        "lastStatus": report.status.ecs_name,
        "runtimeId": report.runtime_id,
        "exitCode": report.exit_code,
        "reason": report.reason,
        "health": None if report.health is None else report.health.value,
        "restartCount": report.restart_count,
        "ports": [
            {
                "bindIp": binding.bind_ip,
                "hostPort": binding.host_port,
                "containerPort": binding.container_port,
                "protocol": binding.protocol,
            }
            for binding in report.bindings
        ],
    }


def node_view(context: Context, instance: InstanceRecord) -> Document:
    """Render a host: what it is, what it has, what its tasks hold of it, and whether it is heard of."""
    facts, load = instance.facts, context.state.load.of(instance.id)
    presence = context.state.presence.of(instance.id)
    return {
        "id": instance.id,
        "containerInstanceArn": context.arns.container_instance(instance.cluster, instance.id),
        "cluster": instance.cluster,
        "hostname": facts.hostname,
        "status": instance.status,
        "drainingSince": instance.draining_at,
        "drainDeadlineAt": instance.drain_deadline_at,
        "connected": presence is not None and presence.connected,
        "since": None if presence is None else presence.since,
        "lastSeenAt": None if presence is None else presence.last_seen_at,
        "registeredAt": instance.registered_at,
        "agentVersion": facts.agent_version,
        "dockerVersion": facts.docker_version,
        "metricsAddress": facts.metrics_address,
        "tasks": load.tasks,
        "cpuUnits": {"total": facts.resources.cpu_units, "used": load.cpu_units},
        "memoryMiB": {"total": facts.resources.memory_mib, "used": load.memory_mib},
        "gpus": {"total": facts.resources.gpus, "used": load.gpus},
        "diskMiB": facts.disk_mib,
        "health": _health(presence),
        "conditions": [
            {"type": condition.type, "ok": condition.ok, "since": condition.since, "reason": condition.reason}
            for condition in (presence.conditions if presence else ())
        ],
        "attributes": instance.all_attributes,
    }


def _health(presence: Presence | None) -> str:
    if presence is None or not presence.connected:
        return "UNKNOWN"
    return "IMPAIRED" if presence.impaired else "OK"


def story_line_view(line: StoryLine) -> Document:
    """Render one line of a story."""
    return {
        "at": line.at,
        "event": line.event,
        "message": line.message,
        "actor": line.actor,
        "container": line.container,
        "host": line.host,
    }
