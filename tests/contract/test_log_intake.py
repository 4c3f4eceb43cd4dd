"""Log links: a host ships what its own tasks' containers say, exactly once, and is told what is kept and why not."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType
from msgspec.structs import replace

from agent.identity import Identity, join
from controlplane.fleet import log_intake
from controlplane.logs.api import LogGroup
from homeport.datadir import AgentDir
from homeport.ids import TaskId
from homeport.protocol import (
    LOG_BATCH_BYTES,
    PATH_LOGS,
    Challenge,
    Goodbye,
    Hello,
    HostFacts,
    LogAck,
    LogBatch,
    LogOpen,
    LogOpened,
    LogRefused,
    LogsDown,
    LogsUp,
    Welcome,
)
from homeport.spec import LogShipping
from tests.fakes.fleet import FleetServer, a_task, eventually, serve_fleet
from tests.fakes.log_store import MemoryLogStore

M = TypeVar("M")

FACTS = HostFacts(hostname="host-1", agent_version="1")
TASK = TaskId("cafe")
GROUP = "/shop/web"
STREAM = f"ecs/main/{TASK}"


class Link:
    """A log link in the hands of a test."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, message: LogsUp) -> None:
        text = msgspec.json.encode(message)
        if isinstance(message, LogBatch):
            await self._socket.send_bytes(zlib.compress(text))
        else:
            await self._socket.send_str(text.decode())

    async def send_bytes(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def receive(self, kind: type[M]) -> M:
        """Return the next message, which must be of this kind."""
        frame = await self._socket.receive(timeout=10)
        assert frame.type is WSMsgType.TEXT, f"the link ended with {frame} instead of {kind.__name__}"
        message = msgspec.json.decode(frame.data, type=LogsDown)
        assert isinstance(message, kind), message
        return message

    async def greet(self, identity: Identity) -> Welcome:
        challenge = await self.receive(Challenge)
        signature = identity.sign_hello(challenge.nonce)
        await self.send(Hello(instance_id=identity.instance_id, signature=signature, facts=FACTS))
        return await self.receive(Welcome)

    async def open(
        self, channel: int = 1, *, task: str = TASK, container: str = "main", runtime: str = ""
    ) -> LogOpened:
        await self.send(LogOpen(channel=channel, task_id=TaskId(task), container=container, runtime_id=runtime))
        return await self.receive(LogOpened)

    async def refused(self, channel: int = 1, *, task: str = TASK, container: str = "main") -> LogRefused:
        await self.send(LogOpen(channel=channel, task_id=TaskId(task), container=container))
        return await self.receive(LogRefused)

    async def acked(self) -> dict[int, int]:
        return (await self.receive(LogAck)).kept


def batch(*texts: str, channel: int = 1, first: int = 1, position: str = "p", end: bool = False) -> LogBatch:
    events = tuple((1_000 + first + number, 0, text) for number, text in enumerate(texts))
    return LogBatch(channel=channel, first=first, events=events, position=position, end=end)


@asynccontextmanager
async def linked(directory: Path, **shipping: Any) -> AsyncIterator[tuple[FleetServer, Identity, Callable[[], Any]]]:
    """A host with one task, whose output goes to GROUP; the last is to be called for a new link."""
    async with serve_fleet() as server, aiohttp.ClientSession() as http:
        identity = await join(server.url, *server.activation(), None, FACTS, AgentDir(directory))
        put_task(server, identity, **shipping)

        @asynccontextmanager
        async def connect() -> AsyncIterator[Link]:
            async with http.ws_connect(server.url + PATH_LOGS) as socket:
                link = Link(socket)
                await link.greet(identity)
                yield link

        yield server, identity, connect


def put_task(server: FleetServer, identity: Identity, *, name: str = TASK, **shipping: Any) -> None:
    task = a_task(name, identity.instance_id)
    options = {"group": GROUP, "stream_prefix": "ecs", "create_group": True, **shipping}
    (container,) = task.spec.containers
    shipped = replace(container, shipping=LogShipping(**options))
    silent = replace(container, name="silent")
    server.put(replace(task, spec=replace(task.spec, containers=(shipped, silent))))


async def kept(server: FleetServer, stream: str = STREAM) -> list[str]:
    return [event.text for event in await server.context.logs.read(GROUP, stream)]


async def test_lines_are_kept_and_acked_in_the_stream_of_the_task(tmp_path: Path) -> None:
    async with linked(tmp_path, retention_days=7) as (server, _, connect), connect() as link:
        assert await link.open() == LogOpened(channel=1, next=1, position="")
        await link.send(batch("a", "b"))
        assert await link.acked() == {1: 3}
        await link.send(batch("c", first=3, position="q"))
        assert await link.acked() == {1: 4}
        assert await kept(server) == ["a", "b", "c"]
        assert server.context.logs.group(GROUP).retention_days == 7


async def test_a_link_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, _, connect):
        async with connect() as link:
            await link.open()
            await link.send(batch("a", "b"))
            await link.acked()
        async with connect() as link:
            assert await link.open(7) == LogOpened(channel=7, next=3, position="p")
            # An agent that never saw the ack sends it again, cut in another way.
            await link.send(batch("b", "c", channel=7, first=2))
            assert await link.acked() == {7: 4}
        assert await kept(server) == ["a", "b", "c"]


async def test_without_a_prefix_the_stream_is_named_after_the_container(tmp_path: Path) -> None:
    async with linked(tmp_path, stream_prefix="") as (server, _, connect), connect() as link:
        assert "Docker id" in (await link.refused()).reason
        await link.open(runtime="d0cde1")
        await link.send(batch("a"))
        await link.acked()
        assert await kept(server, "d0cde1") == ["a"]


async def test_many_channels_at_once(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, identity, connect), connect() as link:
        for number in range(50):
            put_task(server, identity, name=f"{number:04x}")
            await link.open(number, task=f"{number:04x}")
        for number in range(50):
            await link.send(batch("a", channel=number))
            await link.send(batch("b", channel=number, first=2))
        acks: dict[int, int] = {}
        while acks != dict.fromkeys(range(50), 3):
            acks |= await link.acked()
        assert await kept(server, "ecs/main/0031") == ["a", "b"]


@pytest.mark.parametrize(
    ("task", "container", "reason"),
    [
        ("beef", "main", "this host has no task beef"),
        ("f00d", "main", "this host has no task f00d"),
        (TASK, "silent", "the output of container silent isn't to be shipped"),
        (TASK, "other", "the output of container other isn't to be shipped"),
    ],
)
async def test_a_host_ships_for_its_own_tasks_only(tmp_path: Path, task: str, container: str, reason: str) -> None:
    async with linked(tmp_path) as (server, _, connect), connect() as link:
        server.put(a_task("f00d", "another-host"))
        refused = await link.refused(task=task, container=container)
        assert (refused.reason, refused.final) == (reason, True)
        await link.open()  # the link goes on


async def test_a_group_that_nobody_made_is_waited_for(tmp_path: Path) -> None:
    async with linked(tmp_path, create_group=False) as (server, _, connect), connect() as link:
        refused = await link.refused()
        assert "there is no log group /shop/web" in refused.reason
        assert "awslogs-create-group" in refused.reason
        assert not refused.final
        await link.refused()
        assert await story(server) == [("logs-held", refused.reason)]  # once
        await server.context.logs.create_group(LogGroup(name=GROUP, created_at=1))
        await link.open()
        await link.send(batch("a"))
        await link.acked()
        assert [event for event, _ in await story(server)] == ["logs-held", "logs-kept"]


async def story(server: FleetServer) -> list[tuple[str, str]]:
    await server.context.state.durable()
    lines = await server.context.state.journal.story(TASK)
    held = "The container's output stays on its host for now: "
    return [(line.event, line.message.removeprefix(held)) for line in lines]


async def test_a_store_that_is_full_refuses_and_heals(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, _, connect), connect() as link:
        await link.open()
        store = server.context.logs
        assert isinstance(store, MemoryLogStore)
        store.problem = "the disk is full"
        await link.send(batch("a"))
        assert (await link.receive(LogRefused)).reason == "the disk is full"
        await link.send(batch("b", first=2))  # was under way: the channel is closed, so it isn't taken
        await link.open(3)  # what is kept can be read all the while
        await link.send(batch("a", channel=3))
        assert (await link.receive(LogRefused)).reason == "the disk is full"
        assert await story(server) == [("logs-held", "the disk is full")]  # once
        store.problem = ""
        assert await link.open(2) == LogOpened(channel=2, next=1, position="")
        await link.send(batch("a", "b", channel=2))
        assert await link.acked() == {2: 3}
        assert await kept(server) == ["a", "b"]


@pytest.mark.parametrize("what", ["stream", "group"])
async def test_what_was_deleted_is_made_again_and_goes_on(tmp_path: Path, what: str) -> None:
    """What was shipped before stays deleted, though its host still has it; no story tells of a missing group."""
    async with linked(tmp_path) as (server, _, connect):
        logs = server.context.logs
        async with connect() as link:
            await link.open()
            await link.send(batch("a", position="p"))
            await link.acked()
            await (logs.delete_stream(GROUP, STREAM) if what == "stream" else logs.delete_group(GROUP))
            await link.send(batch("b", first=2, position="q"))
            assert (await link.receive(LogRefused)).retry_after_s < 1
            assert await link.open() == LogOpened(channel=1, next=2, position="p")
        async with connect() as link:
            assert await link.open() == LogOpened(channel=1, next=2, position="p")
            await link.send(batch("b", first=2, position="q"))
            assert await link.acked() == {1: 3}
        assert await kept(server) == ["b"]
        assert (await logs.stream(GROUP, STREAM)).shipped_next == 3
        assert await story(server) == []


async def test_a_group_that_was_deleted_and_nobody_makes_again_is_waited_for(tmp_path: Path) -> None:
    async with linked(tmp_path, create_group=False) as (server, _, connect), connect() as link:
        group = LogGroup(name=GROUP, created_at=0)
        await server.context.logs.create_group(group)
        await link.open()
        await link.send(batch("a", position="p"))
        await link.acked()
        await server.context.logs.delete_group(GROUP)
        await link.send(batch("b", first=2))
        assert (await link.receive(LogRefused)).retry_after_s < 1
        assert (await link.refused()).retry_after_s > 1
        await server.context.logs.create_group(group)
        assert await link.open() == LogOpened(channel=1, next=2, position="p")


async def test_the_last_batch_ends_the_stream(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, _, connect), connect() as link:
        await link.open()
        await link.send(batch("bye", end=True))
        assert await link.acked() == {1: 2}
        assert (await server.context.logs.stream(GROUP, STREAM)).ended


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not compressed", "isn't compressed with zlib"),
        (zlib.compress(b"[" + b" " * LOG_BATCH_BYTES), "cut off, or larger than"),
        (zlib.compress(b"{}"), "not a message of the agent protocol"),
        (zlib.compress(msgspec.json.encode(LogBatch(1, 1, ((1, 9, "x"),), ""))), "a log event of kind 9"),
    ],
)
async def test_nonsense_ends_the_link_and_says_why(tmp_path: Path, data: bytes, reason: str) -> None:
    async with linked(tmp_path) as (server, _, connect):
        async with connect() as link:
            await link.open()
            await link.send_bytes(data)
            assert reason in (await link.receive(Goodbye)).reason
        async with connect() as link:
            await link.open()
        assert await kept(server) == []


async def test_a_stranger_gets_no_link(tmp_path: Path) -> None:
    async with linked(tmp_path / "a") as (server, identity, _), aiohttp.ClientSession() as http:
        other = Identity.new()
        async with http.ws_connect(server.url + PATH_LOGS) as socket:
            link = Link(socket)
            challenge = await link.receive(Challenge)
            signature = msgspec.structs.replace(other, instance_id=identity.instance_id).sign_hello(challenge.nonce)
            await link.send(Hello(instance_id=identity.instance_id, signature=signature, facts=FACTS))
            assert "the signature is not that of" in (await link.receive(Goodbye)).reason


async def test_a_container_has_one_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that tries again and again over one link opens a new one each time."""
    monkeypatch.setattr(log_intake, "MAX_CHANNELS", 3)
    async with linked(tmp_path) as (server, _, connect), connect() as link:
        for number in range(1, 9):
            await link.open(number)
        await link.send(batch("not any more", channel=7))
        await link.send(batch("a", channel=8))
        assert await link.acked() == {8: 2}
        assert await kept(server) == ["a"]


async def test_a_host_has_one_link(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, _, connect), connect() as first, connect() as second:
        assert "another log link of this host" in (await first.receive(Goodbye)).reason
        await second.open()
        await eventually(lambda: server.intake.link_count == 1)


async def test_lines_of_a_host_with_a_wrong_clock_are_kept_in_order(tmp_path: Path) -> None:
    """Else they would have expired on arrival, or followers would miss those that come once the clock is right."""
    async with linked(tmp_path, retention_days=1) as (server, _, connect):
        now = int(server.context.clock.now() * 1000)
        year = 365 * 86_400_000
        async with connect() as link:
            await link.open()
            said = ((-5, 0, "no time"), (0, 0, "1970"), (now + year, 0, "next year"), (now, 1, "set"))
            await link.send(LogBatch(channel=1, first=1, events=said, position="p"))
            await link.acked()
        async with connect() as link:
            await link.open()
            await link.send(LogBatch(channel=1, first=5, events=((now + 1, 0, "and on"),), position="q"))
            await link.acked()
        assert await kept(server) == ["no time", "1970", "next year", "set", "and on"]
        events = await server.context.logs.read(GROUP, STREAM)
        made = int(server.task(TASK).created_at * 1000)
        assert all(made <= event.at <= now + 600_000 for event in events)


async def test_a_late_host_ships_for_a_task_that_has_left_memory(tmp_path: Path) -> None:
    async with linked(tmp_path) as (server, _, connect):
        task = server.task(TASK)
        with server.context.state.transaction() as transaction:
            transaction.archive(task)
        await server.context.state.durable()
        async with connect() as link:
            await link.open()
            await link.send(batch("late"))
            await link.acked()
        assert await kept(server) == ["late"]


async def test_links_end_with_the_control_plane(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:
        async with serve_fleet() as server:
            identity = await join(server.url, *server.activation(), None, FACTS, AgentDir(tmp_path))
            socket = await http.ws_connect(server.url + PATH_LOGS)
            link = Link(socket)
            await link.greet(identity)
            await eventually(lambda: server.intake.link_count == 1)
        async with asyncio.timeout(10):
            assert (await link.receive(Goodbye)).reason == "the control plane is stopping"
        await socket.close()
