"""A client that sees a task STOPPED and reads its log then, as workflow schedulers do, finds the last lines."""

from typing import Any

import pytest

from controlplane.logs.api import GroupMissing
from tests.contract.containers_logs import ContainersLogs, started, task_id
from tests.contract.fleet import Fleet
from tests.contract.logs import texts
from tests.contract.refusals import refused
from tests.contract.server import ACCOUNT, REGION, ApiServer

GROUP = "/homeport/default/web"
ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}"


@pytest.fixture
def logs(server: ApiServer, ecs: Any) -> ContainersLogs:
    return ContainersLogs.on_a_host(Fleet(server), ecs)


def request(arn: str, **group: str) -> dict[str, str]:
    return {"logStreamName": f"homeport/web/{task_id(arn)}", **(group or {"logGroupName": GROUP})}


def read(server: ApiServer, arn: str, **group: str) -> list[str]:
    return texts(server.client("logs").get_log_events(**request(arn, **group)))


@pytest.mark.parametrize("group", [{"logGroupName": GROUP}, {"logGroupIdentifier": GROUP}, {"logGroupIdentifier": ARN}])
def test_the_last_lines_of_a_task_that_has_just_stopped_are_waited_for(
    server: ApiServer, ecs: Any, logs: ContainersLogs, monkeypatch: pytest.MonkeyPatch, group: dict[str, str]
) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, (1, "begun"))
    logs.fleet.stopped(arn, exit_code=3)
    store = server.context.logs

    async def grown(*_: Any) -> None:
        await logs.arrive(arn, (2, "boom: no such table"), end=True)

    monkeypatch.setattr(store, "grown", grown)
    assert read(server, arn, **group) == ["begun", "boom: no such table"]


def test_a_group_and_stream_that_the_task_made_are_waited_for(
    server: ApiServer, ecs: Any, logs: ContainersLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = started(logs, ecs)
    logs.fleet.stopped(arn)

    async def stream(*_: Any) -> None:
        monkeypatch.undo()
        await logs.arrive(arn, (1, "only line"), end=True)
        raise GroupMissing(GROUP)

    monkeypatch.setattr(server.context.logs, "stream", stream)
    assert read(server, arn) == ["only line"]


def test_nothing_is_waited_for_that_will_not_come(
    server: ApiServer, ecs: Any, logs: ContainersLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, ended, lost = (started(logs, ecs) for _ in range(3))
    logs.ship(runs, (1, "so far"))
    logs.ship(ended, (1, "all"), end=True)
    logs.ship(lost, (1, "what came"))
    logs.fleet.stopped(ended)
    logs.fleet.stopped(lost)

    async def grown(*_: Any) -> None:
        raise AssertionError("waited")

    monkeypatch.setattr(server.context.logs, "grown", grown)
    assert read(server, runs) == ["so far"]
    assert read(server, ended) == ["all"]
    logs.fleet.set_presence(logs.fleet.record(lost).instance_id, connected=False)
    assert read(server, lost) == ["what came"]
    # A stream of another group, of the same name.
    client = server.client("logs")
    logs.fleet.set_presence(logs.fleet.record(lost).instance_id)
    client.create_log_group(logGroupName="other")
    assert refused(client.get_log_events, **request(lost, logGroupName="other"))[0] == "ResourceNotFoundException"
