"""Memory: tasks of one task definition hold equal specs, so they share one copy of whatever is equal in them.

A record that comes from the journal, a request or a report has objects of its own. Before it is kept, its parts that
equal those of an earlier record are replaced by those. Records are never changed in place, so nobody can tell.
"""

from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from controlplane.state.records import TaskRecord
from homeport.protocol import ContainerReport
from homeport.spec import TaskSpec

__all__ = ["Sharing"]

T = TypeVar("T", bound=msgspec.Struct)

#: Examples kept of each sort. Far more revisions than are in use at a time; beyond, sharing begins afresh.
_MAX_EXAMPLES: Final = 10_000
#: Members of a task that are mostly the same for all tasks of a definition.
_SHARED: Final = ("cluster", "launch_type", "resources", "group", "started_by", "tags")
#: What a task without overrides has.
_NONE: Final[dict[str, Any]] = {}


class Sharing:
    """Remembers an example of each container, spec, task and report, and makes later ones share its parts."""

    def __init__(self) -> None:
        self._examples: dict[tuple[object, ...], msgspec.Struct] = {}

    def task(self, task: TaskRecord, old: TaskRecord | None) -> TaskRecord:
        """Return an equal record that shares what it can. `old`: the one that it replaces, which has done so."""
        if old is not None:
            if old.spec is task.spec and old.containers is task.containers:
                return task
            spec = task.spec if old.spec is task.spec else self._spec(task.spec)
            return replace(task, spec=spec, containers=self._reports(task))
        spec = self._spec(task.spec)
        example = self._example((TaskRecord, task.cluster, spec.family, spec.revision, task.started_by), task)
        shared = {name: getattr(example, name) for name in _SHARED if getattr(example, name) == getattr(task, name)}
        # Overrides are ECS documents: 1 and true are equal there, but not the same. Only having none is shared.
        return replace(task, spec=spec, containers=self._reports(task), overrides=task.overrides or _NONE, **shared)

    def _spec(self, spec: TaskSpec) -> TaskSpec:
        key = (TaskSpec, spec.cluster, spec.family, spec.revision)
        example = self._examples.get(key)
        if isinstance(example, TaskSpec) and _of_one_template(spec, example):
            return spec
        containers = tuple(
            self._like((spec.family, spec.revision, container.name), container, container_arn=container.container_arn)
            for container in spec.containers
        )
        return self._like(key, replace(spec, containers=containers), task_arn=spec.task_arn, containers=containers)

    def _reports(self, task: TaskRecord) -> tuple[ContainerReport, ...]:
        return tuple(self._report(report) for report in task.containers)

    def _report(self, report: ContainerReport) -> ContainerReport:
        example = self._example((ContainerReport, report.name, report.image_digest), report)
        return replace(report, name=example.name, image_digest=example.image_digest)

    def _like(self, key: tuple[object, ...], struct: T, **own: object) -> T:
        """Return `struct` made of its example and its own members, if it differs in those alone."""
        like = replace(self._example(key, struct), **own)
        return like if like == struct else struct

    def _example(self, key: tuple[object, ...], struct: T) -> T:
        if len(self._examples) >= _MAX_EXAMPLES:
            self._examples.clear()
        return self._examples.setdefault(key, struct)  # type: ignore[return-value]


def _of_one_template(spec: TaskSpec, example: TaskSpec) -> bool:
    """Tell whether two specs were copied from the same one, as those of tasks that are launched are: they share then.

    Each template has environments of its own, also where they are empty.
    """
    if len(spec.containers) != len(example.containers):
        return False
    return all(
        container.environment is its.environment
        for container, its in zip(spec.containers, example.containers, strict=True)
    )
