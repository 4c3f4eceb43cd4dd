"""The gate that bounds starts, and how it finds its limit."""

import asyncio

import pytest

from agent.engine.gates import AdaptiveGate, Climb, climb


class Time:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("cores", "limit", "low", "high"), [(1, 2, 2, 3), (2, 4, 2, 6), (16, 32, 16, 48)])
def test_it_starts_at_two_per_core(cores: int, limit: int, low: int, high: int) -> None:
    state = Climb.for_cores(cores)
    assert (state.limit, state.low, state.high) == (limit, low, high)


@pytest.mark.parametrize(
    ("before", "per_s", "limit", "step"),
    [
        (Climb(limit=4, low=2, high=6), 4.0, 4, 1),  # the first figure is what others are compared with
        (Climb(limit=5, low=2, high=6, per_s=4.0), 5.0, 6, 1),  # better: on
        (Climb(limit=5, low=2, high=6, per_s=4.0), 3.0, 4, -1),  # worse: back
        (Climb(limit=5, low=2, high=6, per_s=4.0), 4.1, 5, 1),  # the same: stay
        (Climb(limit=6, low=2, high=6, per_s=4.0), 5.0, 6, 1),  # never above
        (Climb(limit=2, low=2, high=6, step=-1, per_s=4.0), 5.0, 2, -1),  # never below
    ],
)
def test_it_climbs(before: Climb, per_s: float, limit: int, step: int) -> None:
    after = climb(before, per_s)
    assert (after.limit, after.step) == (limit, step)


async def test_no_more_than_the_limit_are_inside_and_the_first_comes_first() -> None:
    gate = AdaptiveGate(Climb(limit=2, low=2, high=2), Time())
    release = asyncio.Event()
    entered: list[int] = []

    async def work(number: int) -> None:
        async with gate:
            entered.append(number)
            await release.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(work(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == [0, 1]
        release.set()
    assert entered == [0, 1, 2, 3, 4]


async def test_a_cancelled_waiter_gives_its_place_up() -> None:
    gate = AdaptiveGate(Climb(limit=1, low=1, high=1), Time())

    async def work() -> None:
        async with gate:
            pass

    async with asyncio.TaskGroup() as group:
        async with gate:
            first, second, third = (group.create_task(work()) for _ in range(3))
            await asyncio.sleep(0)
            first.cancel()
        # The turn went to the second just now; it is cancelled before it has noticed.
        second.cancel()
    assert third.done()
    async with asyncio.timeout(1), gate:
        pass


async def run_window(gate: AdaptiveGate, time: Time, count: int, seconds_each: float) -> None:
    async def work() -> None:
        async with gate:
            time.now += seconds_each
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())


async def test_it_goes_down_when_more_is_slower() -> None:
    time = Time()
    gate = AdaptiveGate(Climb(limit=3, low=2, high=4, per_s=100.0), time)
    await run_window(gate, time, 9, 1.0)
    assert gate.limit == 2


async def test_it_is_not_moved_by_what_did_not_queue() -> None:
    time = Time()
    gate = AdaptiveGate(Climb(limit=3, low=2, high=4, per_s=100.0), time)
    for _ in range(5):
        await run_window(gate, time, 3, 1.0)
    assert gate.limit == 3
