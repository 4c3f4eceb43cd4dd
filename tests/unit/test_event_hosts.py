"""Hosts: each session that begins or ends is told once, and what they have left as it is by then; also after a kill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.events.feed import JournalFeed
from controlplane.events.hosts import HostTeller, tell_connection
from controlplane.state.presence import Presence
from controlplane.state.state import load_state
from homeport.ids import InstanceId
from homeport.spec import Resources
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.fleet import eventually
from tests.fakes.journal import MemoryJournal
from tests.fakes.records import a_context, a_task, an_instance, put


def a_world(*names: str) -> Context:
    context = a_context()
    put(context, *(an_instance(name, cpu=1000, memory=1000) for name in names))
    return context


def connect(context: Context, name: str, *, connected: bool = True) -> None:
    presence = Presence(connected=connected, since=1.0, last_seen_at=1.0)
    context.state.presence.put(InstanceId(name), presence)
    tell_connection(context, InstanceId(name))


def run_on(context: Context, name: str, task: str, cpu: int) -> None:
    put(context, a_task(task, instance_id=InstanceId(name), resources=Resources(cpu_units=cpu)))


async def told(context: Context, after: int = 0) -> list[tuple[str, bool, int]]:
    """(host, whether connected, CPU left) of each event of a host."""
    feed = JournalFeed(context.state.journal, context.arns)
    found = []
    for _, document, _ in await feed.read(after, limit=10_000):
        detail: dict[str, Any] = document["detail"]
        if "agentConnected" in detail:
            left = detail["remainingResources"][0]["integerValue"]
            found.append((detail["containerInstanceArn"].rpartition("/")[2], detail["agentConnected"], left))
    return found


@asynccontextmanager
async def telling(context: Context, **options: Any) -> AsyncIterator[HostTeller]:
    teller = HostTeller(context, **{"period_s": 0.001, "grace_s": 1000.0, **options})
    async with asyncio.TaskGroup() as group:
        running = group.create_task(teller.run())
        await asyncio.sleep(0)
        try:
            yield teller
        finally:
            running.cancel()


async def restarted(context: Context) -> Context:
    """The context of the next process, after this one was killed."""
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    state = await load_state(MemoryJournal.restarted(journal))
    other = a_context()
    return Context(
        state=state,
        clock=other.clock,
        random=other.random,
        arns=other.arns,
        endpoints=other.endpoints,
        logs=other.logs,
    )


async def test_each_session_that_begins_or_ends_is_told_once() -> None:
    context = a_world("a")
    connect(context, "a")
    tell_connection(context, InstanceId("a"))
    connect(context, "a", connected=False)
    connect(context, "a")
    assert await told(context) == [("a", False, 1000), ("a", True, 1000), ("a", False, 1000), ("a", True, 1000)]
    versions = [instance.version for instance in context.state.instances]
    assert versions == [4]  # what DescribeContainerInstances shows is the version last told


async def test_a_host_that_is_gone_is_not_told_of() -> None:
    context = a_world("a")
    (host,) = context.state.instances
    put(context, replace(host, status="INACTIVE", version=2))
    connect(context, "a")
    tell_connection(context, InstanceId("b"))
    assert len(await told(context)) == 2


async def test_what_a_host_has_left_is_told_after_its_tasks_and_only_if_it_has_changed() -> None:
    context = a_world("a", "b")
    async with telling(context):
        before = context.state.journal.last_event
        assert before == 2  # what is left at first their registration has told
        run_on(context, "a", "t1", 100)
        run_on(context, "a", "t2", 200)
        await eventually(lambda: context.state.journal.last_event == before + 3)
        assert await told(context, before) == [("a", False, 700)]
        (t1, t2) = context.state.tasks
        put(context, replace(t1, status=TaskStatus.RUNNING, version=2))  # holds what it held
        revision = context.state.revision
        put(
            context,
            replace(t2, status=TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=1.0, version=2),
        )
        await eventually(lambda: context.state.revision == revision + 2)
        assert (await told(context))[-1] == ("a", False, 900)


async def test_nothing_is_written_while_nothing_changes() -> None:
    context = a_world("a", "b")
    for name in "ab":
        run_on(context, name, f"t{name}", 100)
    async with telling(context) as teller:
        await eventually(lambda: all(host.told.remaining is not None for host in context.state.instances))
        for _ in range(3):
            teller.tell_due()
        revision = context.state.revision
        for _ in range(3):
            teller.tell_due()
            await asyncio.sleep(0)
        assert context.state.revision == revision


async def test_hosts_take_turns() -> None:
    names = [f"h{number:03}" for number in range(250)]
    context = a_world(*names)
    put(context, *(a_task(f"t-{name}", instance_id=name, resources=Resources(cpu_units=1)) for name in names))
    teller = HostTeller(context)
    for expected in (100, 200, 250, 250):
        teller.tell_due()
        assert sum(host.told.remaining is not None for host in context.state.instances) == expected


async def test_what_was_not_told_before_a_kill_is_told_after_it_and_nothing_twice() -> None:
    context = a_world("a", "b")
    HostTeller(context).tell_due()
    connect(context, "a")
    run_on(context, "a", "t1", 100)
    context = await restarted(context)
    before = context.state.journal.last_event
    HostTeller(context).tell_due()
    assert await told(context, before) == [("a", True, 900)]
    connect(context, "a")  # back: it has been told as connected, and was not missed
    assert len(await told(context, before)) == 1


async def test_a_host_that_has_yet_to_return_after_a_restart_is_as_was_told_last() -> None:
    context = a_world("a")
    connect(context, "a")
    context = await restarted(context)
    (host,) = context.state.instances
    put(context, replace(host, status="DRAINING", version=host.version + 1))
    connect(context, "a")  # nothing new: so what was told before must have been this
    assert (await told(context))[-2:] == [("a", True, 1000), ("a", True, 1000)]


async def test_a_host_that_does_not_return_after_a_restart_is_told_as_disconnected() -> None:
    context = a_world("a", "b", "c")
    for name in "ab":
        connect(context, name)
    context = await restarted(context)
    connect(context, "b")
    before = context.state.journal.last_event
    async with telling(context, grace_s=0.0):
        await eventually(lambda: context.state.journal.last_event > before)
    connections = {name: connected for name, connected, _ in await told(context, before)}
    assert connections == {"a": False}
    assert [host.told.connected for host in context.state.instances] == [False, True, False]
