"""The event stream over a real socket: from any place on, filtered, resumed, told what is gone, cut off at the end."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.events.notes import CustomFacts
from controlplane.state.records import TaskRecord
from homeport.cli.client import Client
from homeport.cli.connection import Connection
from homeport.cli.errors import CannotConnect, CliError
from homeport.status import TaskStatus
from tests.contract.server import ACCESS_KEY_ID, DEADLINE_S, REGION, SECRET, ApiServer, sign
from tests.fakes import records
from tests.fakes.records import an_instance

PATH = "/homeport/v1/events"
TASK = "ECS Task State Change"


def a_task(name: str, **members: Any) -> TaskRecord:
    """A task that waits for a host."""
    return records.a_task(name, status=TaskStatus.PROVISIONING, **members)


def client_of(server: ApiServer, secret: str = SECRET) -> Client:
    return Client(
        Connection(endpoint_url=server.url, region=REGION, access_key_id=ACCESS_KEY_ID, secret_access_key=secret)
    )


def put(server: ApiServer, *records: Any) -> None:
    def body() -> None:
        with server.context.state.transaction() as transaction:
            for record in records:
                transaction.put(record)

    server.call(body)


def read(server: ApiServer, **query: Any) -> list[tuple[int, str, Any]]:
    """What there is at present, without the marks."""
    found = client_of(server).server_sent(PATH, {"after": "0", "follow": "false", **query})
    return [each for each in found if each[1]]


def names(found: list[tuple[int, str, Any]]) -> list[str]:
    return [document["resources"][0].rpartition("/")[2] for _, _, document in found]


class Follower:
    """Reads a stream in a thread."""

    def __init__(self, server: ApiServer, **query: str) -> None:
        self.found: list[tuple[int, str, Any]] = []
        self.marks: list[int] = []
        self.failure: CliError | None = None
        self._changed = threading.Condition()
        self._stream = client_of(server).server_sent(PATH, query, follow=True)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for each in self._stream:
                with self._changed:
                    self.found += [each] if each[1] else []
                    self.marks += [] if each[1] else [each[0]]
                    self._changed.notify_all()
        except CliError as error:
            self.failure = error

    def until(self, condition: Callable[["Follower"], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), DEADLINE_S), (self.found, self.marks)


@contextmanager
def following(server: ApiServer, **query: str) -> Iterator[Follower]:
    """A follower that has its first mark: what is put from here on is its."""
    follower = Follower(server, **query)
    follower.until(lambda f: bool(f.marks))
    yield follower


def test_what_happens_from_now_on_is_followed(server: ApiServer) -> None:
    put(server, a_task("before"))
    with following(server) as follower:
        put(server, a_task("one"))
        follower.until(lambda f: len(f.found) == 1)
        put(server, a_task("two"), a_task("three"))
        follower.until(lambda f: len(f.found) == 3)
    assert names(follower.found) == ["one", "two", "three"]
    assert [(number, kind) for number, kind, _ in follower.found] == [(2, TASK), (3, TASK), (4, TASK)]
    assert follower.found[0][2]["detail"]["taskArn"] == "arn:aws:ecs:eu-home-1:123456789012:task/default/one"


def test_it_begins_where_the_reader_was(server: ApiServer) -> None:
    put(server, *(a_task(f"{number:03}") for number in range(250)))  # more than a page
    assert names(read(server)) == [f"{number:03}" for number in range(250)]
    assert names(read(server, after="247")) == ["247", "248", "249"]
    assert read(server, after="250") == []
    with following(server, after="248") as follower:
        follower.until(lambda f: len(f.found) == 2)
    assert names(follower.found) == ["248", "249"]


def test_the_header_of_a_browser_that_comes_back_wins(server: ApiServer) -> None:
    put(server, a_task("a"), a_task("b"), a_task("c"))
    path = f"{PATH}?after=0&follow=false"
    headers = sign(server.url + path, None, b"", extra={"Last-Event-ID": "2"}, method="GET", service="homeport")
    answer = server.send("GET", path, headers, b"")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body.count(b"\ndata: ") == 1
    assert answer.body.startswith(b": 2 is reached\nid: 2\n\n")
    assert b"id: 3\nevent: ECS Task State Change\ndata: {" in answer.body


def test_a_time_is_a_place_too(server: ApiServer) -> None:
    server.call(lambda: setattr(server.journal, "clock", server.clock))
    put(server, a_task("a"))
    server.clock.move(60.0)
    now = server.clock.now()
    put(server, a_task("b"))
    found = client_of(server).server_sent(PATH, {"since": repr(now - 1), "follow": "false"})
    assert names([each for each in found if each[1]]) == ["b"]


@pytest.mark.parametrize("page", [100, 0])
def test_events_are_selected(server: ApiServer, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """With a page of 0 as in a long history: what can't be wanted is passed over by its row alone."""
    if page == 0:
        monkeypatch.setattr("controlplane.api.events_route.Selection.is_narrow", True)
        monkeypatch.setattr("controlplane.api.events_route._PAGE", page)
        monkeypatch.setattr("controlplane.api.events_route._SCAN", 3)
    host = an_instance("host", cluster="blue")
    web = replace(a_task("w1"), group="service:web")
    put(server, host, web, replace(a_task("s1"), cluster="blue"))
    put(server, replace(web, status=TaskStatus.PENDING, instance_id=host.id, version=2))
    assert len(read(server)) == 4
    assert names(read(server, cluster="blue")) == ["host", "s1"]
    assert names(read(server, service="web")) == ["w1", "w1"]
    assert names(read(server, service="default/web")) == ["w1", "w1"]
    assert read(server, service="blue/web") == []
    assert names(read(server, service="arn:aws:ecs:eu-home-1:123456789012:service/web")) == ["w1", "w1"]
    assert names(read(server, service="arn:aws:ecs:eu-home-1:123456789012:service/default/web")) == ["w1", "w1"]
    assert names(read(server, task="s")) == ["s1"]
    assert names(read(server, task="arn:aws:ecs:eu-home-1:123456789012:task/blue/s1")) == ["s1"]
    assert names(read(server, type="instance")) == ["host"]
    assert len(read(server, type=["instance", TASK])) == 4
    assert names(read(server, pattern='{"detail": {"lastStatus": ["PENDING"]}}')) == ["w1"]
    assert read(server, cluster="blue", service="web") == []


def test_a_reader_who_wants_nothing_of_what_comes_is_told_how_far_it_has_come(server: ApiServer) -> None:
    with following(server, type="instance") as follower:
        put(server, a_task("a"), a_task("b"))
        follower.until(lambda f: f.marks[-1] == 2)
    assert follower.found == []


def test_a_place_whose_successors_are_gone_is_refused_by_name(server: ApiServer) -> None:
    put(server, *(a_task(name) for name in "abcdef"))
    server.call(lambda: server.journal.forget_events(3))
    with pytest.raises(CliError, match="behind 2 are gone; the oldest that is kept is 4: read on with after=3") as info:
        read(server, after="2")
    assert info.value.code == "EventsExpired"
    assert names(read(server, after="3")) == ["d", "e", "f"]
    assert names(read(server, after="0")) == ["d", "e", "f"]  # from the beginning of what there is
    with pytest.raises(CliError, match="no event 7 yet, the last one is 6") as info:
        read(server, after="7")
    assert info.value.code == "EventsUnknown"


def test_what_retention_takes_from_a_slow_reader_is_told(server: ApiServer) -> None:
    with following(server) as follower:

        def much_at_once() -> None:
            with server.context.state.transaction() as transaction:
                for number in range(10):
                    transaction.put(a_task(f"{number:03}"))
            server.journal.forget_events(7)

        server.call(much_at_once)
        follower.until(lambda f: len(f.found) == 4)
    assert follower.found[0] == (7, "homeport.gap", {"after": 0, "oldest": 8})
    assert names(follower.found[1:]) == ["007", "008", "009"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"after": "x"}, "after must be the number of an event, but was 'x'"),
        ({"after": "-1"}, "after must be the number"),
        ({"after": "1" * 19}, "after must be the number"),
        ({"since": "yesterday"}, "since must be a time in epoch seconds, but was 'yesterday'"),
        ({"since": "nan"}, "since must be a time"),
        ({"pattern": "{"}, "Event pattern is not valid"),
        ({"pattern": '{"detail": {}}'}, "Event pattern is not valid"),
    ],
)
def test_what_can_not_be_used_is_refused_by_name(server: ApiServer, query: dict[str, str], message: str) -> None:
    with pytest.raises(CliError, match=message):
        list(client_of(server).server_sent(PATH, {"follow": "false", **query}))


def test_it_is_for_those_who_hold_the_key(server: ApiServer) -> None:
    with pytest.raises(CannotConnect, match="refuses the access key"):
        list(client_of(server, "wrong").server_sent(PATH, {"follow": "false"}))
    assert server.send("GET", PATH, {}, b"").status in (400, 403)


def test_readers_are_cut_off_when_the_control_plane_stops(server: ApiServer) -> None:
    with following(server) as follower:
        put(server, a_task("a"))
        follower.until(lambda f: len(f.found) == 1)

        async def stop() -> None:
            for loop in server._loops:
                loop.cancel()
            await asyncio.wait(server._loops)

        server.thread.call(stop)
        follower.thread.join(DEADLINE_S)
        assert not follower.thread.is_alive()
        # Not ended in order: a reader that doesn't follow must not take it for all there is.
        assert isinstance(follower.failure, CannotConnect)
    with pytest.raises(CliError, match="is stopping"):
        read(server)


def test_there_is_a_limit_to_readers(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.streams._readers, "_most", 1)
    with following(server), pytest.raises(CliError, match="There are 1 readers already"):
        read(server)


def test_an_event_from_outside_can_not_break_the_stream(server: ApiServer) -> None:
    def emit() -> None:
        with server.context.state.transaction() as transaction:
            transaction.emit(CustomFacts(source="shop", detail_type="Order\n\ndata: {}", detail={"text": "a\nb"}))

    server.call(emit)
    ((number, kind, document),) = read(server)
    assert (number, kind) == (1, "Order data: {}")
    assert document["detail"] == {"text": "a\nb"}
    assert read(server, cluster="default") == []
    assert len(read(server, type=document["detail-type"])) == 1


def test_a_reader_that_takes_nothing_is_cut_off(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.api.events_route._STALLED_S", 0.2)
    host, _, port = server.url.removeprefix("http://").partition(":")
    headers = sign(server.url + PATH, None, b"", method="GET", service="homeport")
    with socket.create_connection((host, int(port))) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": f"{host}:{port}", **headers}.items())
        connection.sendall(f"GET {PATH} HTTP/1.1\r\n{head}\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"

        def much() -> None:
            with server.context.state.transaction() as transaction:
                for _ in range(100):
                    detail = {"much": "x" * 200_000}
                    transaction.emit(CustomFacts(source="shop", detail_type="Order", detail=detail))

        server.call(much)
        server.wait_until(lambda: server.streams.reader_count == 0)
