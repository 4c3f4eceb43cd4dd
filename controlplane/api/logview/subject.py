"""Whose logs are read: one task's, or those of a service's tasks as they come and go."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from controlplane.api.ecs.log_shipping import LogDefaults, shipping_of
from controlplane.api.logview.model import Wanted
from controlplane.context import Context
from controlplane.logs.api import GroupMissing, LogStream, StoreUnavailable
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import ServiceRecord
from homeport.ids import TaskId
from homeport.spec import LogShipping
from homeport.status import TaskStatus

__all__ = ["MAX_TASKS", "OneTask", "ServiceTasks", "Subject"]

#: Tasks of a service that are read at a time, the newest ones; and of those that left memory.
MAX_TASKS: Final = 500
_MAX_ARCHIVED: Final = 100
_PAGE: Final = 50


class Subject(Protocol):
    """Whose logs are read."""

    async def tasks(self, wanted: Wanted) -> Sequence[TaskRecord]:
        """Return the tasks to begin with. Those that come later are among `present`."""
        ...

    def present(self) -> Sequence[TaskRecord]:
        """Return all that are in memory; the only ones that can have news."""
        ...

    @property
    def closed(self) -> bool:
        """Whether no task can come any more."""
        ...


class OneTask:
    """See Subject."""

    closed = True

    def __init__(self, task: TaskRecord) -> None:
        self._task = task

    async def tasks(self, _: Wanted) -> Sequence[TaskRecord]:
        """See Subject."""
        return [self._task]

    def present(self) -> Sequence[TaskRecord]:
        """See Subject."""
        return [self._task]


class ServiceTasks:
    """See Subject."""

    def __init__(self, context: Context, service: ServiceRecord) -> None:
        self._context = context
        self._service = service

    async def tasks(self, wanted: Wanted) -> Sequence[TaskRecord]:
        """See Subject.

        Those that haven't stopped; with a limit in time or number also those that have; if all have, the last ones.
        """
        found = self.present()
        going = [task for task in found if task.status is not TaskStatus.STOPPED]
        if wanted.resume is not None:
            return found[-MAX_TASKS:]
        limited = wanted.everything or wanted.tail is not None or wanted.span.since is not None
        if found and not limited:
            return (going or found)[-MAX_TASKS:]
        return [*await self._archived(found, wanted.span.since), *found][-MAX_TASKS:]

    def present(self) -> Sequence[TaskRecord]:
        """See Subject."""
        where = (self._service.cluster, self._service.group)
        found = self._context.state.tasks.where("cluster_group", where)
        return sorted(found, key=lambda task: (task.created_at, task.id))

    @property
    def closed(self) -> bool:
        """See Subject."""
        service = self._context.state.services.get(self._service.key)
        return service is None or service.id != self._service.id or service.status == "INACTIVE"

    async def _archived(self, known: Sequence[TaskRecord], since: float | None) -> list[TaskRecord]:
        """Return tasks that have left memory, by the streams of their containers: the last written ones."""
        places = {(ship_to.group, f"{ship_to.stream_prefix}/{name}/") for name, ship_to in self._shipping(known)}
        found: dict[str, TaskRecord] = {}
        passed = {task.id for task in known}
        for group, prefix in sorted(place for place in places if not place[1].startswith("/")):
            for stream in await self._streams(group, prefix, since):
                task_id = stream.name.rpartition("/")[2]
                if task_id in passed or task_id in found:
                    continue
                task = await self._context.state.journal.archived_task(TaskId(task_id))
                if task is not None and (task.cluster, task.group) == (self._service.cluster, self._service.group):
                    found[task_id] = task
        return sorted(found.values(), key=lambda task: (task.created_at, task.id))[-_MAX_ARCHIVED:]

    def _shipping(self, known: Sequence[TaskRecord]) -> Iterator[tuple[str, LogShipping]]:
        """Yield where containers of known tasks, and of the service's revisions that are kept, are shipped to."""
        state, cluster = self._context.state, self._service.cluster
        for task in known:
            for spec in task.spec.containers:
                if spec.shipping is not None:
                    yield spec.name, spec.shipping
        defaults = LogDefaults(collect=self._context.collect_logs)
        for name in {revision.task_definition for revision in state.revisions.where("service", self._service.id)}:
            definition = state.task_definitions.get(name)
            for container in () if definition is None else definition.document["containerDefinitions"]:
                ship_to = shipping_of(container, cluster, name.rpartition(":")[0], defaults)
                if ship_to is not None:
                    yield container["name"], ship_to

    async def _streams(self, group: str, prefix: str, since: float | None) -> list[LogStream]:
        found: list[LogStream] = []
        after: tuple[int, str] | None = None
        while len(found) < MAX_TASKS:
            try:
                page = await self._context.logs.streams(
                    group, prefix=prefix, order="last_event", descending=True, after=after, limit=_PAGE
                )
            except (GroupMissing, StoreUnavailable):
                break
            for stream in page:
                if since is not None and (stream.last_at or 0) <= since * 1000:
                    return found
                found.append(stream)
            if len(page) < _PAGE:
                break
            after = (page[-1].last_at or 0, page[-1].name)
        return found
