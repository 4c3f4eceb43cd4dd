"""The last lines of containers that have just stopped: who sees a task STOPPED and then reads its log finds them."""

from controlplane.api.logs.arguments import group_name
from controlplane.api.logview.opening import settled, stream_name
from controlplane.api.registry import Document
from controlplane.context import Context
from homeport.ids import TaskId

__all__ = ["last_lines"]


async def last_lines(context: Context, request: Document) -> None:
    """Return at once, unless a container that has just stopped writes to the `logStreamName` of a request: then when
    its host has shipped the rest, or after a few seconds. Raises GroupMissing, StoreUnavailable.

    A task's stop is told without waiting for its output, which comes a little later over a connection of its own.
    """
    group = group_name(context, request.get("logGroupName") or request.get("logGroupIdentifier") or "")
    stream = request["logStreamName"]
    task = context.state.tasks.get(TaskId(stream.rpartition("/")[2]))
    if task is None:
        return
    for container in task.spec.containers:
        shipping = container.shipping
        if shipping is not None and shipping.group == group and stream_name(task, container.name) == stream:
            await settled(context, task, container.name, shipping)
