"""What the tests of schedules share: the loop beside the server, and requests that are good."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError
from typing import Any

from controlplane.schedules.loop import ScheduleLoop
from controlplane.state.schedule_records import ScheduleRunRecord
from tests.contract.server import ACCOUNT, REGION, ApiServer

__all__ = ["CLUSTER", "ROLE", "WEB", "Clockwork", "beside", "ecs_target", "schedule"]

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


@contextlib.contextmanager
def beside(server: ApiServer, loop: Coroutine[Any, Any, None]) -> Iterator[None]:
    """Run a loop beside the server. An error in it is the test's."""
    future = asyncio.run_coroutine_threadsafe(loop, server.thread.loop)
    try:
        yield
    finally:
        future.cancel()
        with contextlib.suppress(CancelledError):
            future.result(10)


class Clockwork:
    """The schedules' loop on a server's event loop, and a clock to move."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._loop = ScheduleLoop(server.context)

    @contextlib.contextmanager
    def running(self) -> Iterator["Clockwork"]:
        with beside(self.server, self._loop.run()):
            yield self
            self.settle()

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
