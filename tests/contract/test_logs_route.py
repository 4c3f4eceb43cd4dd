"""The log route over a real socket, with a log that a test writes chunk by chunk."""

import asyncio
import http.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from controlplane.api.logs_route import LogStreams
from controlplane.api.server import FrontDoor
from homeport.cli.client import Client
from homeport.cli.connection import Connection
from homeport.cli.errors import CannotConnect, CliError
from homeport.ids import TaskId
from homeport.protocol import LogChunk
from tests.contract.server import sign
from tests.fakes.fleet import a_context, a_task, eventually

TASK = "0123456789abcdef0123456789abcdef"
PATH = "/homeport/v1/logs"


class FakeLog:
    """Stands for `FleetHub.read_logs`: yields what a test puts; remembers what was asked for and whether it ended."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[LogChunk] = asyncio.Queue()
        self.asked: list[tuple[str, str, bool, int | None, float | None]] = []
        self.open = 0

    def put(self, *texts: str, end: bool = False, error: str = "") -> None:
        lines = tuple((1.5, "stdout", text) for text in texts)
        self.chunks.put_nowait(LogChunk(request_id="r", lines=lines, end=end, error=error))

    async def read(
        self, task_id: TaskId, container: str, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncIterator[LogChunk]:
        self.asked.append((task_id, container, follow, tail, since))
        self.open += 1
        try:
            while True:
                yield await self.chunks.get()
        finally:
            self.open -= 1


class Served:
    """The route, its log, and a client."""

    def __init__(self, log: FakeLog, client: Client) -> None:
        self.log = log
        self.client = client

    async def read(self, **query: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(lambda: list(self.client.lines(PATH, query)))

    def post(self, query: str, body: bytes) -> tuple[int, str]:
        """Post a signed body; return the answer's status and text."""
        url = f"{self.client.connection.endpoint_url}{PATH}?{query}"
        headers = sign(url, None, body, service="homeport", region="r", key="K", secret="S")
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=10)
        try:
            connection.request("POST", url.partition("/homeport")[1] + url.partition("/homeport")[2], body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@asynccontextmanager
async def serving(secret: str = "S", *, keep_alive_s: float = 15.0) -> AsyncIterator[Served]:
    context, log = a_context(), FakeLog()
    with context.state.transaction() as transaction:
        transaction.put(a_task(TASK, "h1"))
        transaction.put(a_task("f" * 32))
    door = FrontDoor(context, secret_of={"K": "S"}.get)
    application = web.Application()
    streams = LogStreams(context, door, log.read, keep_alive_s=keep_alive_s)
    application.add_routes(streams.routes())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        connection = Connection(endpoint_url=url, region="r", access_key_id="K", secret_access_key=secret)
        yield Served(log, Client(connection))
    finally:
        await runner.cleanup()


async def test_a_log_is_streamed_line_by_line_to_its_end() -> None:
    async with serving() as served:
        served.log.put("one", "two ü")
        served.log.put(end=True)
        found = await served.read(task=TASK[:6], tail="5", since="12.5")
        assert found == [
            {"at": 1.5, "stream": "stdout", "text": text, "task": TASK, "container": "main"}
            for text in ("one", "two ü")
        ]
        assert served.log.asked == [(TASK, "main", False, 5, 12.5)]
        await eventually(lambda: served.log.open == 0)


async def test_a_followed_line_arrives_before_the_next_is_written() -> None:
    async with serving() as served:
        lines = served.client.lines(PATH, {"task": TASK, "follow": "true"}, follow=True)
        for text in ("one", "two"):
            served.log.put(text)
            line = await asyncio.to_thread(lambda: next(lines))
            assert line["text"] == text
        served.log.put(end=True)
        assert await asyncio.to_thread(lambda: list(lines)) == []


async def test_a_reader_that_goes_away_ends_the_reading_on_the_host() -> None:
    async with serving() as served:
        lines = served.client.lines(PATH, {"task": TASK, "follow": "true"}, follow=True)
        served.log.put("one")
        await asyncio.to_thread(lambda: next(lines))
        lines.close()
        assert served.log.open == 1
        for _ in range(100):
            served.log.put("x" * 65536)
        await eventually(lambda: served.log.open == 0)


async def test_empty_lines_find_a_reader_that_went_away_and_are_not_part_of_the_log() -> None:
    async with serving(keep_alive_s=0.001) as served:
        lines = served.client.lines(PATH, {"task": TASK, "follow": "true"}, follow=True)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(asyncio.to_thread(lambda: next(lines)))
            await eventually(lambda: served.log.open == 1)
            served.log.put("one")
        assert first.result()["text"] == "one"
        lines.close()
        await eventually(lambda: served.log.open == 0)


async def test_a_log_that_breaks_off_says_so_in_its_last_line() -> None:
    async with serving() as served:
        served.log.put("one")
        served.log.put(end=True, error="the host went away")
        found = await served.read(task=TASK)
        assert found[1:] == [{"error": "the host went away"}]


async def test_a_log_that_can_not_be_read_at_all_is_an_error() -> None:
    async with serving() as served:
        served.log.put(end=True, error="the host h1 is not connected")
        with pytest.raises(CliError, match=r"The log can't be read: the host h1 is not connected\. \(LogUnavailable\)"):
            await served.read(task=TASK)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "can't name a task"),
        ({"task": "abcd"}, "No task was found that 'abcd' could mean"),
        ({"task": "f" * 32}, "has no log: it isn't on a host yet"),
        ({"task": TASK, "container": "nope"}, "The task has no container 'nope'; it has: main."),
        ({"task": TASK, "tail": "-1"}, "tail must be a number of lines"),
        ({"task": TASK, "tail": "٣"}, "tail must be a number of lines"),
        ({"task": TASK, "since": "nan"}, "since must be a time in epoch seconds"),
    ],
)
async def test_what_can_not_be_used_is_refused(query: dict[str, str], text: str) -> None:
    async with serving() as served:
        with pytest.raises(CliError) as caught:
            await served.read(**query)
        assert text in caught.value.message
        assert served.log.asked == []


async def test_it_wants_a_signature_by_a_known_key() -> None:
    async with serving(secret="wrong") as served:
        with pytest.raises(CannotConnect, match="refuses the access key"):
            await served.read(task=TASK)
        assert served.log.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"began": 1}\x00',
        b'{"began": 1, "marks": [["t", "c", 1e300, 1]]}',
        b'{"began": 1, "marks": [["t", "c", 1, -1]]}',
        b'{"began": 1, "marks": [["t", "c", 1, 9007199254740993]]}',
    ],
)
async def test_a_body_that_says_not_where_to_go_on_is_refused(body: bytes) -> None:
    async with serving() as served:
        status, text = await asyncio.to_thread(served.post, f"task={TASK}", body)
        assert (status, "The body doesn't say where to go on" in text) == (400, True)


async def test_a_pattern_may_be_anything() -> None:
    async with serving() as served:
        for grep in ("%FF", "%ED%B3%BF", "%00", "(%3Fi)", "a{1000}{1000}", "x" * 1025, "%F0%9F%90%8B"):
            served.log.put(end=True)
            status, _ = await asyncio.to_thread(served.post, f"task={TASK}&grep={grep}", b"")
            assert status in (200, 400), grep
