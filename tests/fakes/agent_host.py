"""A whole agent less its uplink, in memory: worker, journal on disk, fake engine; killed and started again at will."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from agent.engine.api import Engine
from agent.isolation import Contact
from agent.journal import Journal
from agent.task.perform import TaskCgroups
from agent.worker import Worker
from agent.workload import Shipping
from homeport.clock import Clock
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignment, Assignments, TaskReport
from homeport.spec import ContainerSpec, Dependency, HealthCheck, RestartPolicy, TaskSpec
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.host import FakeCgroups, FakeHost, FakeShipping

__all__ = ["OWNER", "AgentHost", "assignment", "container", "depends", "health_check", "restarts", "spec_of"]

OWNER = InstanceId("i" * 32)


def container(name: str, image: str = "web:1", **more: object) -> ContainerSpec:
    """Return the spec of a container."""
    return msgspec.convert({"name": name, "image": image, "container_arn": f"arn:{name}"} | more, ContainerSpec)


def depends(name: str, condition: str = "START") -> Dependency:
    return msgspec.convert({"container": name, "condition": condition}, Dependency)


def restarts(period_s: int = 60, ignored: tuple[int, ...] = ()) -> RestartPolicy:
    return RestartPolicy(enabled=True, attempt_period_s=period_s, ignored_exit_codes=ignored)


def health_check() -> HealthCheck:
    return HealthCheck(command=("CMD", "true"))


def spec_of(*containers: ContainerSpec, task_id: str = "t1", **more: object) -> TaskSpec:
    """Return the spec of a task of these containers."""
    base = {"task_arn": f"arn:task/{task_id}", "cluster": "default", "family": "web", "revision": 1}
    spec = msgspec.convert(base | {"containers": [], **more}, TaskSpec)
    return msgspec.structs.replace(spec, containers=containers or (container("web"),))


def assignment(
    spec: TaskSpec | None = None,
    *,
    task_id: str = "t1",
    desired: DesiredStatus = DesiredStatus.RUNNING,
    known: TaskStatus = TaskStatus.PENDING,
    stop_reason: str = "",
) -> Assignment:
    """Return an assignment."""
    return Assignment(
        task_id=TaskId(task_id),
        desired=desired,
        spec=spec or spec_of(task_id=task_id),
        known=known,
        stop_reason=stop_reason,
    )


class AgentHost:
    """One host's agent. What its reports said last is in `reports`; nothing is acknowledged unless `ack` is called."""

    def __init__(
        self,
        path: Path,
        engine: Engine,
        clock: Clock,
        *,
        cleanup_after_s: float = 3600.0,
        owner: InstanceId = OWNER,
        cgroups: TaskCgroups | None = None,
        patience_s: float = 5.0,
        contact: Callable[[], Contact] = Contact,
    ) -> None:
        """`patience_s`: how long `until` waits before the test fails. `contact` is made for each new worker."""
        self.path = path
        self.owner = owner
        self.patience_s = patience_s
        self.engine = engine
        self.clock = clock
        self.cleanup_after_s = cleanup_after_s
        self.contact = contact
        self.host = FakeHost()
        self.shipping: Shipping = FakeShipping()
        self.cgroups = cgroups or FakeCgroups()
        self.reports: dict[str, TaskReport] = {}
        self.history: list[TaskReport] = []
        self.revision = 0
        self._worker: Worker | None = None
        self._news = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    @property
    def worker(self) -> Worker:
        assert self._worker is not None, "inside running() only"
        return self._worker

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        """Run a new worker on the journal inside the block; leaving it is a kill."""
        journal = Journal(self.path)
        worker = Worker(
            self.engine,
            journal,
            self.host,
            self.cgroups,
            owner=self.owner,
            clock=self.clock,
            rng=random.Random(1),
            shipping=self.shipping,
            cleanup_after_s=self.cleanup_after_s,
            contact=self.contact(),
        )
        self._worker = worker
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(each) for each in (journal.run(), worker.run(), self._collect(worker))]
            self._loops = loops
            worker.session_began()
            yield worker
            self.kill()
        self._worker = None

    def kill(self) -> None:
        """End the agent's loops where they are."""
        for loop in self._loops:
            loop.cancel()

    def stop_collecting(self) -> None:
        """Leave reports in the worker from now on, as if there was no session."""
        self._loops[-1].cancel()

    async def _collect(self, worker: Worker) -> None:
        while True:
            for report in await worker.next_reports():
                self.history.append(report)
                self.reports[report.task_id] = report
            self._news.set()
            self._news = asyncio.Event()

    async def assign(self, *put: Assignment, remove: tuple[str, ...] = (), complete: bool = False) -> None:
        """Send an increment, or a complete set (the first always is one)."""
        base = None if complete or self.worker.revision == -1 else self.revision
        self.revision += 1
        removed = tuple(TaskId(each) for each in remove)
        await self.worker.assign(Assignments(revision=self.revision, base=base, put=put, remove=removed))

    async def until(self, check: Callable[[TaskReport], bool], *, task_id: str = "t1") -> TaskReport:
        """Wait until the last report of a task passes `check`, and return it."""
        async with asyncio.timeout(self.patience_s):
            while (report := self.reports.get(task_id)) is None or not check(report):
                await self._news.wait()
        return report

    async def until_status(self, status: TaskStatus, *, task_id: str = "t1") -> TaskReport:
        return await self.until(lambda report: report.status is status, task_id=task_id)

    async def ack(self, *task_ids: str) -> None:
        """Acknowledge the last reports of tasks."""
        await self.worker.acknowledged({TaskId(each): self.reports[each].seq for each in task_ids})
