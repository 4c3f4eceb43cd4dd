"""A host in memory, as the worker sees it, and cgroups that are only remembered."""

import asyncio
from collections.abc import Callable

from agent.task.model import TaskState
from homeport.ids import TaskId
from homeport.protocol import Condition, HostFacts
from homeport.spec import Resources, TaskSpec

__all__ = ["FakeCgroups", "FakeHost", "FakeShipping"]


class FakeHost:
    """A host of a fixed size."""

    def __init__(self, *, cpu_units: int = 4096, memory_mib: int = 8192, gpu_ids: tuple[str, ...] = ()) -> None:
        self._facts = HostFacts(
            hostname="host-1",
            agent_version="0",
            resources=Resources(
                cpu_units=cpu_units, memory_mib=memory_mib, ports=frozenset({("tcp", 22)}), gpus=len(gpu_ids)
            ),
            gpu_ids=gpu_ids,
        )

    def facts(self) -> HostFacts:
        return self._facts

    async def next_facts(self) -> HostFacts:
        await asyncio.Event().wait()
        return self._facts

    def conditions(self) -> tuple[Condition, ...]:
        return ()

    def log_drivers(self) -> tuple[str, ...]:
        return ("json-file", "none")


class FakeCgroups:
    """Remembers which tasks have a cgroup."""

    def __init__(self) -> None:
        self.tasks: set[TaskId] = set()

    async def ensure(self, task_id: TaskId, task: TaskSpec) -> str | None:
        self.tasks.add(task_id)
        return f"/homeport/{task_id}" if task.memory_mib is not None or task.cpu_units is not None else None

    async def remove(self, task_id: TaskId) -> None:
        self.tasks.discard(task_id)


class FakeShipping:
    """Ships nothing. Tasks in `held` have output that isn't kept; `given_up` are those of them that are no more."""

    def __init__(self) -> None:
        self.on_shipped: Callable[[], None] = lambda: None
        self.held: set[TaskId] = set()
        self.seen: dict[TaskId, TaskState] = {}
        self.given_up: list[TaskId] = []

    def look(self, state: TaskState) -> None:
        self.seen[state.task_id] = state

    def unshipped(self, task_id: TaskId) -> bool:
        return task_id in self.held

    async def give_up(self, task_id: TaskId, why: str) -> None:
        if task_id in self.held:
            self.given_up.append(task_id)
        self.forget(task_id)

    def forget(self, task_id: TaskId) -> None:
        self.seen.pop(task_id, None)
