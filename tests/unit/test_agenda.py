"""The agenda of a reconciler: each thing once, in time, and none for another's sake."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from controlplane.agenda import AFTER_FAILURE_S, Agenda
from tests.fakes.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Looks:
    """What was looked at; a look at something in `broken` fails."""

    def __init__(self, clock: ManualClock) -> None:
        self.refreshed = 0
        self.agenda: Agenda[str] = Agenda(clock, "thing", refresh=self._refresh)
        self.seen: list[str] = []
        self.broken: set[str] = set()

    def _refresh(self) -> None:
        self.refreshed += 1

    def look(self, key: str) -> None:
        self.seen.append(key)
        if key in self.broken:
            raise RuntimeError("broken")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.agenda.run(self.look, at_once=2))
            await turns()
            yield
            task.cancel()


@pytest.fixture
def looks(clock: ManualClock) -> Looks:
    return Looks(clock)


async def turns() -> None:
    """Let everything happen that can."""
    for _ in range(30):
        await asyncio.sleep(0)


async def test_what_is_marked_often_is_looked_at_once_and_in_order(looks: Looks) -> None:
    looks.agenda.mark(["b", "a"])
    looks.agenda.mark(["b", "c"])
    async with looks.running():
        assert looks.seen == ["b", "a", "c"]
        looks.agenda.mark(["a"])
        await turns()
        assert looks.seen == ["b", "a", "c", "a"]


async def test_at_rest_nothing_happens(looks: Looks) -> None:
    async with looks.running():
        looks.agenda.mark([])
        before = looks.refreshed
        await turns()
        assert looks.refreshed == before
        assert not looks.agenda.busy


async def test_moments_come_in_their_order_and_a_new_plan_replaces_the_old(looks: Looks, clock: ManualClock) -> None:
    async with looks.running():
        looks.agenda.schedule("late", clock.time + 20)
        looks.agenda.schedule("soon", clock.time + 10)
        looks.agenda.schedule("moved", clock.time + 5)
        looks.agenda.schedule("moved", clock.time + 15)
        looks.agenda.schedule("never", clock.time + 5)
        looks.agenda.schedule("never", None)
        for seconds, seen in ((5, []), (5, ["soon"]), (5, ["soon", "moved"]), (5, ["soon", "moved", "late"])):
            clock.time += seconds
            looks.agenda.wake()
            await turns()
            assert looks.seen == seen


async def test_hasten_keeps_an_earlier_plan(looks: Looks, clock: ManualClock) -> None:
    async with looks.running():
        looks.agenda.schedule("a", clock.time + 5)
        looks.agenda.hasten("a", clock.time + 9)
        looks.agenda.schedule("b", clock.time + 9)
        looks.agenda.hasten("b", clock.time + 5)
        clock.time += 5
        looks.agenda.wake()
        await turns()
        assert sorted(looks.seen) == ["a", "b"]


async def test_a_moment_comes_by_itself(looks: Looks, clock: ManualClock) -> None:
    async with looks.running():
        looks.agenda.schedule("a", clock.time)
        await turns()
        assert looks.seen == ["a"]


async def test_after_the_clock_was_set_back_nothing_waits_for_its_old_moment(looks: Looks, clock: ManualClock) -> None:
    async with looks.running():
        looks.agenda.schedule("late", clock.time + 20)
        looks.agenda.schedule("soon", clock.time + 10)
        clock.set_by -= 5  # no more than clocks are put right
        looks.agenda.wake()
        await turns()
        assert looks.seen == []
        clock.set_by -= 3600
        looks.agenda.wake()
        await turns()
        assert looks.seen == ["late", "soon"]
        looks.agenda.schedule("late", clock.now() + 20)
        looks.agenda.wake()
        await turns()
        assert looks.seen == ["late", "soon"]


async def test_what_is_put_off_waits_and_holds_up_nothing_else(looks: Looks) -> None:
    async with looks.running():
        looks.agenda.put_off("a", 0.05)
        looks.agenda.mark(["a", "b"])
        await turns()
        assert looks.seen == ["b"]
        async with asyncio.timeout(5):
            while looks.seen != ["b", "a"]:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0)


async def test_what_is_forgotten_is_not_looked_at(looks: Looks, clock: ManualClock) -> None:
    looks.agenda.mark(["a"])
    looks.agenda.schedule("a", clock.time + 1)
    looks.agenda.forget("a")
    async with looks.running():
        clock.time += 1
        looks.agenda.wake()
        await turns()
        assert looks.seen == []


async def test_a_look_that_fails_is_logged_and_repeated_and_stops_no_other(looks: Looks, clock: ManualClock) -> None:
    looks.broken.add("bad")
    looks.agenda.mark(["bad", "good"])
    with capture_logs() as logs:
        async with looks.running():
            assert looks.seen == ["bad", "good"]
            assert [line["event"] for line in logs] == ["a thing could not be reconciled"]
            looks.broken.clear()
            clock.time += AFTER_FAILURE_S
            looks.agenda.wake()
            await turns()
            assert looks.seen == ["bad", "good", "bad"]
            assert len(logs) == 1
