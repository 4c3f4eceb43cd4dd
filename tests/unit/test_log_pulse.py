"""The pulse at which the agent looks for output: who waits is asked, once a beat, and nobody else is woken."""

import asyncio

import pytest

from agent.logs.pulse import Pulse
from tests.fakes.fleet import eventually
from tests.fakes.tasks import background

PERIOD_S = 0.001


async def test_each_waits_for_its_own() -> None:
    pulse, asked, ready = Pulse(PERIOD_S), 0, False

    def other() -> bool:
        nonlocal asked
        asked += 1
        return ready

    async with background(pulse.until(other)) as waiting:
        await pulse.until(lambda: asked >= 3)
        assert not waiting.done()
        ready = True
        await eventually(waiting.done)


async def test_what_it_raises_is_for_the_one_who_waits() -> None:
    pulse, asked = Pulse(PERIOD_S), 0

    def other() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    async with background(pulse.until(other)) as waiting:
        with pytest.raises(ZeroDivisionError):
            await pulse.until(lambda: 1 // 0 > 0)
        await eventually(waiting.done)


async def test_without_anybody_waiting_there_is_no_beat() -> None:
    pulse = Pulse(PERIOD_S)
    asked = 0

    def never() -> bool:
        nonlocal asked
        asked += 1
        return False

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5 * PERIOD_S):
            await pulse.until(never)
    before = asked
    await pulse.until(lambda: True)
    assert asked == before
    assert pulse._timer is None
