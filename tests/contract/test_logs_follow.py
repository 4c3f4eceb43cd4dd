"""Logs that are followed: by a reader who stays, over tasks that come and go, and who comes back when it is cut off."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.api.logview import store_feed
from controlplane.logs.api import StoreUnavailable
from homeport.cli.client import Client
from homeport.cli.connection import Connection
from homeport.cli.errors import CannotConnect
from tests.contract.containers_logs import BEGAN, SIDE, ContainersLogs, started, task_id
from tests.contract.fleet import WEB, Fleet, register_web, run
from tests.contract.server import ACCESS_KEY_ID, REGION, SECRET, ApiServer
from tests.contract.service_calls import create, put_records


@pytest.fixture
def logs(server: ApiServer, ecs: Any) -> ContainersLogs:
    return ContainersLogs.on_a_host(Fleet(server), ecs)


class Follower:
    """Reads a followed log in a thread."""

    def __init__(self, server: ApiServer, query: dict[str, str], resume: dict[str, Any] | None = None) -> None:
        self._server = server
        connection = Connection(
            endpoint_url=server.url, region=REGION, access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET
        )
        self.documents: list[dict[str, Any]] = []
        self.done = threading.Event()
        self.cut_off = threading.Event()
        lines = Client(connection).lines(
            "/homeport/v1/logs", {"follow": "true", "resumable": "true", **query}, follow=True, document=resume
        )
        threading.Thread(target=self._read, args=[lines], daemon=True).start()

    def _read(self, lines: Iterator[dict[str, Any]]) -> None:
        try:
            for document in lines:
                self.documents.append(document)
        except CannotConnect:
            self.cut_off.set()
        else:
            self.done.set()

    @property
    def texts(self) -> list[str]:
        return [document["text"] for document in self.documents if "text" in document]

    @property
    def standing(self) -> dict[str, Any]:
        """What the reader would come back with."""
        (given,) = (document for document in self.documents if "marks" in document)
        marks = {(mark[0], mark[1]): mark for mark in given["marks"]}
        for line in self.documents:
            if "text" in line:
                mark = [line["task"], line["container"], line["at"], line.get("number", 0)]
                marks[line["task"], line["container"]] = mark
        return {**given, "marks": list(marks.values())}

    def shows(self, *texts: str) -> None:
        """Wait until exactly this was read."""
        self._server.wait_until(lambda: len(self.texts) >= len(texts))
        assert self.texts == list(texts)


def test_following_a_task_ends_with_it(ecs: Any, logs: ContainersLogs, server: ApiServer) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, (1, "one"))
    follower = Follower(server, {"task": task_id(arn)})
    follower.shows("one")
    logs.ship(arn, (2, "two"), (3, "three"))
    follower.shows("one", "two", "three")
    logs.ship(arn, (4, "four"), end=True)
    logs.fleet.stopped(arn)
    assert follower.done.wait(10)
    assert follower.texts == ["one", "two", "three", "four"]


def test_lines_that_come_with_an_earlier_time_are_not_lost(ecs: Any, logs: ContainersLogs, server: ApiServer) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, *((100 + second, f"before {second}") for second in range(3)))
    follower = Follower(server, {"task": task_id(arn), "tail": "1"})
    follower.shows("before 2")
    logs.ship(arn, (10, "the clock was set"))
    follower.shows("before 2", "the clock was set")
    logs.ship(arn, (11, "and"), (101, "goes on"))
    follower.shows("before 2", "the clock was set", "and", "goes on")


def test_a_log_store_that_goes_away_is_waited_for(
    ecs: Any, logs: ContainersLogs, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = []

    async def away(*_: Any, **__: Any) -> None:
        failed.append(1)
        raise StoreUnavailable("its disk is gone")

    monkeypatch.setattr(store_feed, "_LOOK_S", 0.01)
    arn = started(logs, ecs)
    logs.ship(arn, (1, "one"))
    follower = Follower(server, {"task": task_id(arn)})
    follower.shows("one")
    with monkeypatch.context() as outage:
        outage.setattr(server.context.logs, "read", away)
        logs.ship(arn, (2, "two"))
        server.wait_until(lambda: len(failed) > 1)
    follower.shows("one", "two")


def test_following_a_service_goes_on_with_tasks_that_come(ecs: Any, logs: ContainersLogs, server: ApiServer) -> None:
    service = create(ecs)
    follower = Follower(server, {"service": "web"})
    one = started(logs, ecs, service=service)
    logs.ship(one, (1, "first of one"))
    follower.shows("first of one")
    two = started(logs, ecs, service=service)
    logs.ship(two, (2, "first of two"))
    follower.shows("first of one", "first of two")
    logs.ship(one, (3, "last of one"), end=True)
    logs.fleet.stopped(one)
    logs.ship(two, (4, "second of two"))
    follower.shows("first of one", "first of two", "last of one", "second of two")
    assert not follower.done.is_set()


def test_following_a_service_ends_with_it(ecs: Any, logs: ContainersLogs, server: ApiServer) -> None:
    service = create(ecs)
    one = started(logs, ecs, service=service)
    logs.ship(one, (1, "one"))
    follower = Follower(server, {"service": "web"})
    follower.shows("one")
    logs.ship(one, (2, "two"), end=True)
    logs.fleet.stopped(one)
    record = server.context.state.services.get("default/web")
    assert record is not None
    put_records(server, replace(record, status="INACTIVE", deployments=(), deleted_at=server.clock.now()))
    assert follower.done.wait(10)
    assert follower.texts == ["one", "two"]


def test_a_reader_that_was_cut_off_goes_on_without_loss_or_repetition(
    ecs: Any, logs: ContainersLogs, server: ApiServer
) -> None:
    service = create(ecs)
    one, quiet, dead = (started(logs, ecs, service=service) for _ in range(3))
    logs.ship(dead, (0, "dead already"), end=True)
    logs.fleet.stopped(dead)
    logs.ship(quiet, (1, "not shown"))
    logs.ship(one, (2, "not shown"), (3, "c"))
    first = Follower(server, {"service": "web", "tail": "1"})
    first.shows("c")
    logs.ship(one, (4, "d"))
    first.shows("c", "d")
    standing = first.standing  # Cut off here. Meanwhile:
    logs.ship(one, (5, "e"), (6, "f"), end=True)
    logs.fleet.stopped(one)
    logs.ship(quiet, (7, "g"))
    short = started(logs, ecs, service=service)
    logs.ship(short, (8, "h"), end=True)
    logs.fleet.stopped(short)
    second = Follower(server, {"service": "web"}, standing)
    second.shows("e", "f", "g", "h")
    logs.ship(quiet, (9, "i"))
    second.shows("e", "f", "g", "h", "i")


def test_readers_are_cut_off_at_once_when_the_control_plane_stops(
    ecs: Any, logs: ContainersLogs, server: ApiServer
) -> None:
    arn = started(logs, ecs)
    logs.ship(arn, (1, "one"))
    follower = Follower(server, {"task": task_id(arn)})
    follower.shows("one")
    _ = server.call(server.stop_loops)
    # Not ended in order: that would say that the log is over.
    assert follower.cut_off.wait(10)
    assert not follower.done.is_set()


def test_a_container_whose_log_is_not_shipped_is_followed_on_its_host(
    ecs: Any, logs: ContainersLogs, server: ApiServer
) -> None:
    register_web(ecs, "mixed", [WEB, {**SIDE, "logConfiguration": {"logDriver": "journald"}}])
    arn = started(logs, ecs, "mixed")
    name = (task_id(arn), "side")
    server.host_logs.lines[name] = [(BEGAN + 1.0, "stdout", "from the host")]
    logs.ship(arn, (2, "shipped"))
    follower = Follower(server, {"task": task_id(arn)})
    follower.shows("from the host", "shipped")
    server.host_logs.lines[name].append((BEGAN + 3.0, "stdout", "more"))
    follower.shows("from the host", "shipped", "more")
    logs.ship(arn, end=True)
    logs.fleet.stopped(arn)
    server.host_logs.ended.add(name)
    assert follower.done.wait(10)
    server.wait_until(lambda: server.host_logs.open == 0)


def test_following_waits_for_what_has_yet_to_begin(ecs: Any, logs: ContainersLogs, server: ApiServer) -> None:
    arn = run(ecs)["taskArn"]
    follower = Follower(server, {"task": task_id(arn)})
    logs.fleet.running(arn)
    logs.ship(arn, (1, "at last"), end=True)
    follower.shows("at last")
    assert follower.done.wait(10)


def test_a_log_that_came_from_the_host_goes_on_there(ecs: Any, logs: ContainersLogs, server: ApiServer) -> None:
    arn = started(logs, ecs)
    name = (task_id(arn), "web")
    server.host_logs.lines[name] = [(1.0, "stdout", "one"), (2.0, "stdout", "two")]
    resume = {"began": 1.0, "marks": [[*name, 1.0, 0]]}
    follower = Follower(server, {"task": task_id(arn)}, resume)
    follower.shows("two")
    server.host_logs.lines[name].append((3.0, "stdout", "three"))
    follower.shows("two", "three")
