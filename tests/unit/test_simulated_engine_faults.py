"""The simulated Engine goes wrong as told; the same seed goes the same way."""

import asyncio
from collections.abc import Awaitable

import pytest

from agent.engine.api import EngineEvent
from agent.engine.errors import EngineError, EngineTimeout, EngineUnavailable, NotFound, Rejected
from homeport.spec import PortMapping
from homeport.status import HealthStatus
from tests.engine.cases import collect
from tests.engine.conftest import Lab
from tests.simulation.loop import VirtualLoop
from tests.unit.simulated_machine import CHECK, DEADLINE_S, Machine, machine, present, started, watched

__all__ = ["machine"]

# ---------------------------------------------------------------- faults


def test_an_engine_that_hangs_answers_late(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        machine.engine.hang(20)
        await lab.engine.info()

    machine.run(main)
    assert machine.loop.now > 20


def test_a_call_to_an_engine_that_hangs_for_too_long_times_out_and_may_take_effect_later(machine: Machine) -> None:
    def ran_on(seed: int) -> bool:
        other = Machine(machine.loop, seed)

        async def main(lab: Lab) -> None:
            container_id = await started(lab)
            other.engine.hang(500)
            with pytest.raises(EngineTimeout):
                await lab.engine.stop(container_id, 1)
            assert other.entry.running
            await lab.engine.list(lab.labels)
            await asyncio.sleep(30)

        other.run(main)
        return other.entry.running

    assert {ran_on(seed) for seed in range(12)} == {True, False}


def test_a_container_that_ends_while_the_engine_hangs_is_noticed_later(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        events = await watched(lab)
        container_id = await started(lab)
        machine.engine.hang(60)
        (died,) = await collect(events, "die", within_s=DEADLINE_S)
        facts = await lab.inspect(container_id)
        assert facts.exit_code == 7
        assert facts.finished_at is not None
        assert died.at > facts.finished_at + 20

    machine.run(main, "exits-7-after-30s")


def test_an_engine_that_is_down_is_unavailable_and_containers_go_on(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        container_id = await started(lab)
        machine.engine.down(10)
        with pytest.raises(EngineUnavailable):
            await lab.engine.inspect(container_id)
        await asyncio.sleep(11)
        assert (await lab.inspect(container_id)).state == "running"

    machine.run(main)
    assert machine.ends == []


def test_what_ends_while_the_engine_is_down_is_known_when_it_is_back_and_a_resync_comes(machine: Machine) -> None:
    async def main(lab: Lab) -> list[EngineEvent]:
        events = await watched(lab)
        container_id = await started(lab)
        await collect(events, "start")
        machine.engine.down(60)
        found = [await anext(events)]
        assert (await lab.inspect(container_id)).exit_code == 7
        return found

    assert [event.kind for event in machine.run(main, "exits-7-after-30s")] == ["resync"]


def test_a_restart_without_live_restore_takes_containers_down(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        container_id = await started(lab)
        machine.engine.restart(live_restore=False)
        await asyncio.sleep(10)
        facts = await lab.inspect(container_id)
        assert (facts.state, facts.exit_code) == ("exited", 137)

    machine.run(main)
    assert machine.ends == [(137, "engine")]


def test_a_restarted_engine_begins_its_health_checks_anew(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        events = await watched(lab)
        container_id = await started(lab, health_check=CHECK)
        await collect(events, "health")
        machine.engine.restart(live_restore=True, seconds=1)
        await asyncio.sleep(2)
        assert (await lab.inspect(container_id)).health is HealthStatus.UNKNOWN
        await collect(events, "health")
        assert (await lab.inspect(container_id)).health is HealthStatus.HEALTHY

    machine.run(main)


def test_a_removal_that_dies_with_the_engine_is_undone(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        container_id = await started(lab)
        async with asyncio.TaskGroup() as group:
            removing = group.create_task(_error_of(lab.engine.remove(container_id)))
            while (await lab.inspect(container_id)).state != "removing":
                pass
            machine.engine.down(1)
        assert isinstance(removing.result(), EngineUnavailable)
        await asyncio.sleep(2)
        assert (await lab.inspect(container_id)).state == "exited"
        await lab.engine.remove(container_id)
        assert await lab.engine.inspect(container_id) is None

    machine.run(main)


async def _error_of(call: Awaitable[None]) -> EngineError | None:
    try:
        await call
    except EngineError as error:
        return error
    return None


def test_a_container_can_be_removed_behind_the_agents_back(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        events = await watched(lab)
        container_id = await started(lab)
        assert machine.engine.forget(5)
        await collect(events, "die", "destroy")
        assert await lab.engine.inspect(container_id) is None

    machine.run(main)
    assert machine.ends == [(137, "forgotten")]
    assert not machine.entry.exists


def test_foreign_containers_are_not_forgotten_and_tell_who_touched_them(machine: Machine) -> None:
    foreign = machine.engine.add_foreign("theirs", host_port=8080)
    assert not machine.engine.forget(0)
    assert foreign.running
    assert foreign.ports == {("tcp", 8080)}
    assert foreign.asked == []

    async def main(lab: Lab) -> None:
        ports = (PortMapping(container_port=80, host_port=8080),)
        with pytest.raises(Rejected, match="already allocated"):
            await started(lab, ports=ports, task={"network_mode": "bridge"})
        await lab.engine.remove("theirs")

    machine.run(main)
    assert [asked.verb for asked in foreign.asked] == ["remove"]


def test_lost_events_never_come(machine: Machine) -> None:
    async def main(lab: Lab) -> str:
        events = await watched(lab)
        machine.engine.lose_events(60)
        await started(lab)
        await asyncio.sleep(60)
        await lab.engine.create(lab.plan())
        return (await anext(events)).kind + (await anext(events)).kind

    assert machine.run(main, "exits-7-after-30s") == "createresync"


def test_late_events_come_in_their_order(machine: Machine) -> None:
    async def main(lab: Lab) -> list[str]:
        events = await watched(lab)
        machine.engine.late_events(60)
        await started(lab)
        found = [await anext(events) for _ in range(3)]
        assert machine.loop.now >= 60
        assert machine.loop.now < 61
        return [event.kind for event in found]

    assert machine.run(main, "exits-7-after-30s") == ["create", "start", "die"]


def test_a_full_disk_refuses_what_needs_room_and_nothing_else(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        await present(lab)
        made = await lab.engine.create(lab.plan())
        running = await lab.start()
        machine.engine.disk_full(30)
        for refused in (lab.engine.create(lab.plan()), lab.engine.start(made), lab.engine.pull("steady:2")):
            with pytest.raises(Rejected, match="no space left on device"):
                await refused
        await lab.engine.stop(running, 5)
        await lab.engine.remove(running)
        await asyncio.sleep(30)
        await lab.engine.start(made)

    machine.run(main)


def test_a_slow_engine_takes_its_time(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        await present(lab)
        began = machine.loop.now
        machine.engine.slow(100, 60)
        await lab.engine.create(lab.plan())
        assert machine.loop.now - began > 2

    machine.run(main)


@pytest.mark.parametrize("effect", [True, False])
@pytest.mark.parametrize("error", [Rejected, EngineUnavailable, EngineTimeout, NotFound])
def test_the_next_call_fails_as_told_with_or_without_effect(
    machine: Machine, error: type[EngineError], effect: bool
) -> None:
    async def main(lab: Lab) -> None:
        await present(lab)
        plan = lab.plan()
        machine.engine.fail_next("create", error("as told"), effect=effect)
        with pytest.raises(error):
            await lab.engine.create(plan)
        assert (await lab.engine.inspect(plan.name) is not None) == effect
        await lab.engine.create(plan)

    machine.run(main)


# ---------------------------------------------------------------- who asked is gone


def test_what_was_handed_over_goes_on_although_the_agent_is_killed(machine: Machine) -> None:
    doomed = machine.process()

    async def main(lab: Lab) -> None:
        await lab.engine.stop(await started(lab), 20)

    doomed.spawn(main(machine.lab("ignores-sigterm")))
    while not machine.engine.ledger or not machine.entry.asked or machine.entry.asked[-1].verb != "stop":
        machine.wait(0.01)
    doomed.kill()
    assert machine.entry.running
    machine.wait(30)
    assert machine.ends == [(137, "killed")]


def test_an_engine_that_hung_may_do_what_nobody_waits_for_any_more(machine: Machine) -> None:
    def made(seed: int) -> int:
        other = Machine(machine.loop, seed)
        other.run(present)
        doomed = other.process()

        async def main(lab: Lab) -> None:
            other.engine.hang(10)
            await lab.engine.create(lab.plan())

        doomed.spawn(main(other.lab()))
        other.wait(1)
        doomed.kill()
        other.wait(20)
        return len(other.engine.ledger)

    assert {made(seed) for seed in range(8)} == {0, 1}


def test_a_dying_engine_may_still_do_what_it_was_asked_for(machine: Machine) -> None:
    def started_at_last(seed: int) -> bool:
        other = Machine(machine.loop, seed)

        async def main(lab: Lab) -> None:
            await present(lab)
            container_id = await lab.engine.create(lab.plan())
            async with asyncio.TaskGroup() as group:
                starting = group.create_task(_error_of(lab.engine.start(container_id)))
                await asyncio.sleep(0)
                other.engine.down(1)
            assert isinstance(starting.result(), EngineUnavailable)

        other.run(main)
        return other.entry.running

    assert {started_at_last(seed) for seed in range(12)} == {True, False}


# ---------------------------------------------------------------- the same again


def test_the_same_seed_goes_the_same_way(machine: Machine) -> None:
    def story(seed: int) -> list[str]:
        loop = VirtualLoop()
        other = Machine(loop, seed)
        changes: list[str] = []
        other.engine.on_change = lambda entry: changes.append(f"{loop.now:.6f} {entry.id} {entry.ends}")

        async def main(lab: Lab) -> None:
            events = await watched(lab)
            for image in ("crashes-often", "flaps", "exits-7-after-30s"):
                await present(lab, image)
                await lab.start(image=image, health_check=CHECK)
            other.engine.hang(3)
            other.engine.restart(live_restore=False)
            await collect(events, "resync")
            for facts in await lab.engine.list(lab.labels):
                await lab.engine.remove(facts.container_id)

        other.run(main)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.abandon()
        return other.trace + changes

    assert story(3) == story(3)
    assert story(3) != story(4)
