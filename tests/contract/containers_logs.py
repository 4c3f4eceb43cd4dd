"""What containers of contract tests wrote: put into the log store as if their agents had shipped it."""

from contextlib import suppress
from typing import Any, Final

from msgspec.structs import replace

from controlplane.api.logview.opening import stream_name
from controlplane.logs.api import GroupExists, LogEvent, LogGroup, Shipment, StreamExists
from homeport.protocol import LogKind
from tests.contract.fleet import WEB, Fleet, register_web, run

__all__ = ["BEGAN", "SIDE", "ContainersLogs", "started", "task_id"]

#: When the first line was written; a line's number is its second.
BEGAN: Final = 1_790_000_000


#: A second container.
SIDE: Final = {**WEB, "name": "side", "essential": False}


class ContainersLogs:
    """Ships lines of the fleet's tasks."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.server = fleet.server
        self._shipped: dict[tuple[str, str], int] = {}

    @classmethod
    def on_a_host(cls, fleet: Fleet, ecs: Any) -> "ContainersLogs":
        """A host, and the definitions `web` of one container and `two` of two."""
        fleet.add_host("anna", memory=65536, cpu=65536)
        register_web(ecs)
        register_web(ecs, "two", [WEB, SIDE])
        return cls(fleet)

    def ship(self, task_arn: str, *lines: tuple[int, str], **more: Any) -> None:
        """Ship lines, each with the second (after BEGAN) in which it was written."""
        _ = self.server.call(lambda: self.arrive(task_arn, *lines, **more))

    async def arrive(
        self,
        task_arn: str,
        *lines: tuple[int, str],
        container: str = "web",
        kind: LogKind = LogKind.STDOUT,
        end: bool = False,
    ) -> None:
        """Do what `ship` does, on the server's loop."""
        task = self._record(task_arn)
        shipping = task.spec.container(container).shipping
        name = stream_name(task, container)
        first = self._shipped.get((task.id, container), 1)
        events = [LogEvent(at=(BEGAN + at) * 1000, text=text, kind=kind) for at, text in lines]
        self._shipped[task.id, container] = first + len(events)
        logs = self.fleet.context.logs
        with suppress(GroupExists):
            await logs.create_group(LogGroup(name=shipping.group, created_at=1))
        with suppress(StreamExists):
            await logs.create_stream(shipping.group, name, at=1)
        shipment = Shipment(first=first, position="p", end=end)
        await logs.append(shipping.group, name, events, ingested_at=1, shipment=shipment)

    def archive(self, task_arn: str) -> None:
        """Have a task leave memory."""

        def put() -> None:
            with self.fleet.context.state.transaction() as transaction:
                transaction.archive(self._record(task_arn))

        self.server.call(put)

    def into_service(self, task_arn: str, service: Any) -> None:
        """Give a task to a service, as its reconciler would have started it."""

        def put() -> None:
            task = self._record(task_arn)
            with self.fleet.context.state.transaction() as transaction:
                transaction.put(replace(task, group=f"service:{service['serviceName']}", started_by="ecs-svc/1"))

        self.server.call(put)

    def _record(self, task_arn: str) -> Any:
        """The record of a task, on the server's loop."""
        return self.fleet.context.state.tasks.get(task_arn.rsplit("/", 1)[-1])


def started(logs: ContainersLogs, ecs: Any, family: str = "web", service: Any = None) -> str:
    """Run a task; return its ARN once it runs."""
    arn: str = run(ecs, taskDefinition=family)["taskArn"]
    logs.fleet.running(arn)
    if service is not None:
        logs.into_service(arn, service)
    return arn


def task_id(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]
