"""The standalone reconciler beside a server of contract tests, and what its tests ask and wait for."""

import asyncio
from typing import Any

from controlplane.standalone.loop import StandaloneLoop
from homeport.ids import TaskId
from homeport.status import StopCode, TaskStatus
from tests.contract.fleet import Fleet
from tests.contract.server import ApiServer

__all__ = [
    "Reconciler",
    "described",
    "failed_to_start",
    "id_of",
    "next_attempt",
    "placed",
    "stopping",
    "tags",
]


def id_of(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


class Reconciler:
    """The loop of a server, and what tests ask of it."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._loop: StandaloneLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        async def begin() -> None:
            self._loop = StandaloneLoop(self.server.context)
            self._task = asyncio.get_running_loop().create_task(self._loop.run())

        self.server.thread.call(begin)

    def stop(self) -> None:
        async def end() -> None:
            assert self._task is not None
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

        self.server.thread.call(end)

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.server.clock.move(seconds)
        assert self._loop is not None
        self.server.call(self._loop.wake)

    def story(self, task_arn: str) -> list[str]:
        """The messages of a task's story."""
        task_id = TaskId(id_of(task_arn))
        lines = self.server.thread.call(lambda: self.server.journal.story(task_id))
        return [line.message for line in lines]

    def calm(self) -> None:
        """Wait until the loop has nothing to do."""
        loop = self._loop
        assert loop is not None
        self.server.wait_until(lambda: not loop.busy)


def tags(**values: object) -> list[dict[str, str]]:
    """`retries=2` is the tag homeport:retries."""
    return [{"key": f"homeport:{name.replace('_', '-')}", "value": str(value)} for name, value in values.items()]


def described(ecs: Any, arn: str) -> Any:
    (task,) = ecs.describe_tasks(tasks=[arn], include=["TAGS"])["tasks"]
    return task


def next_attempt(fleet: Fleet, arn: str) -> str:
    """Wait for the retry of a task and return its ARN."""
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arn)).order.retried_as is not None)
    return str(fleet.record(fleet.record(arn).order.retried_as).spec.task_arn)


def placed(fleet: Fleet, arn: str) -> None:
    """Wait until a task has a host."""
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arn)).instance_id is not None)


def stopping(fleet: Fleet, arn: str) -> None:
    """Wait until a task is to stop."""
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arn)).desired.name == "STOPPED")


def failed_to_start(fleet: Fleet, arn: str, reason: str) -> None:
    fleet.report(arn, TaskStatus.STOPPED, [], stop_code=StopCode.TASK_FAILED_TO_START, stopped_reason=reason)
