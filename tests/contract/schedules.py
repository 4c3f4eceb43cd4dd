"""What the tests of schedules share: the loop beside the server, and requests that are good."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from controlplane.schedules.loop import ScheduleLoop
from controlplane.state.schedule_records import ScheduleRunRecord
from tests.contract.server import ACCOUNT, REGION, ApiServer

__all__ = ["CLUSTER", "ROLE", "Clockwork", "ecs_target", "schedule"]

CLUSTER = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/default"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/scheduler"
WEB = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/web"


def ecs_target(**members: Any) -> dict[str, Any]:
    """A target that runs one `web` task. `ecs`: further members of its EcsParameters."""
    parameters = {"TaskDefinitionArn": WEB, **members.pop("ecs", {})}
    return {"Arn": CLUSTER, "RoleArn": ROLE, "EcsParameters": parameters, **members}


def schedule(**members: Any) -> dict[str, Any]:
    """The arguments of a good CreateSchedule: every 5 minutes, at once for the first time."""
    good = {"Name": "job", "ScheduleExpression": "rate(5 minutes)", "FlexibleTimeWindow": {"Mode": "OFF"}}
    return {**good, "Target": ecs_target(), **members}


class Clockwork:
    """The schedules' loop on a server's event loop, and a clock to move."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._loop = ScheduleLoop(server.context)

    @contextlib.contextmanager
    def running(self) -> Iterator["Clockwork"]:
        future = asyncio.run_coroutine_threadsafe(self._loop.run(), self.server.thread.loop)
        try:
            yield self
            self.settle()
        finally:
            future.cancel()
            with contextlib.suppress(BaseException):
                future.result(10)

    def move(self, seconds: float) -> None:
        """Let time pass, and all that is due happen."""
        self.server.clock.move(seconds)
        self.settle()

    def settle(self) -> None:
        """Wait until the loop has nothing to look at."""
        self.server.call(self._loop.wake)
        self.server.wait_until(lambda: not self._loop.busy)

    def runs(self, trigger: str = "schedule/default/job") -> list[ScheduleRunRecord]:
        """The runs of a schedule or rule, oldest first."""
        runs: list[ScheduleRunRecord] = self.server.call(
            lambda: list(self.server.context.state.schedule_runs.where("trigger", trigger))
        )
        return runs

    def outcomes(self, trigger: str = "schedule/default/job") -> list[str]:
        return [run.outcome.value for run in self.runs(trigger)]
