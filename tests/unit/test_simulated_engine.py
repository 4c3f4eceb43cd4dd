"""The simulated Engine does what the real one does, and its containers do what their images say."""

from collections.abc import Awaitable, Callable

import pytest

from agent.engine.api import ContainerFacts
from agent.engine.errors import NotFound, Rejected
from homeport.status import HealthStatus
from tests.engine.cases import CASES, collect
from tests.engine.conftest import Lab
from tests.simulation import behaviour
from tests.simulation.workload import IMAGES
from tests.unit.simulated_machine import CHECK, DEADLINE_S, Machine, machine, present, started, watched

__all__ = ["machine"]

# ---------------------------------------------------------------- the seam


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.__name__))
def test_it_keeps_the_seams_promises(machine: Machine, case: Callable[[Lab], Awaitable[None]]) -> None:
    async def main(lab: Lab) -> None:
        await present(lab)
        await case(lab)

    machine.run(main, "ignores-sigterm")


def test_an_image_has_one_id_and_digest_on_every_machine(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        await present(lab)
        first = await lab.engine.image("steady")
        assert first == await lab.engine.image("steady:latest")
        other = Machine(machine.loop, seed=2).lab()
        assert await other.engine.pull("steady") == first
        assert first is not None
        assert first.digest

    machine.run(main)


def test_volumes_are_there_until_nobody_needs_them(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        engine = lab.engine
        await engine.create_volume("data", driver="local", options={}, labels={})
        assert await engine.volume_exists("data")
        await engine.remove_volume("data")
        await engine.remove_volume("data")
        assert not await engine.volume_exists("data")

    machine.run(main)


# ---------------------------------------------------------------- behaviours


def test_every_image_of_the_workload_has_a_behaviour_but_the_one_that_is_absent() -> None:
    assert [image for image in IMAGES if not behaviour.is_known(image)] == ["absent"]


@pytest.mark.parametrize(
    ("image", "code", "why"),
    [
        ("exits-0", 0, "exited"),
        ("exits-7-after-30s", 7, "exited"),
        ("crashes-often", 1, "exited"),
        ("oom", 137, "oom"),
    ],
)
def test_a_container_ends_as_its_image_says(machine: Machine, image: str, code: int, why: str) -> None:
    async def main(lab: Lab) -> ContainerFacts:
        return await lab.exited(await started(lab))

    facts = machine.run(main, image)
    assert (facts.exit_code, facts.oom_killed) == (code, why == "oom")
    assert machine.ends == [(code, why)]
    assert facts.finished_at == pytest.approx(machine.entry.ends[0].at, abs=1e-5)


def test_an_oom_event_comes_before_the_death(machine: Machine) -> None:
    async def main(lab: Lab) -> list[str]:
        events = await watched(lab)
        await started(lab)
        found = [await anext(events) for _ in range(4)]
        return [event.kind for event in found]

    assert machine.run(main, "oom") == ["create", "start", "oom", "die"]


def test_one_that_obeys_ends_with_its_own_code(machine: Machine) -> None:
    async def main(lab: Lab) -> int | None:
        container_id = await started(lab)
        await lab.engine.stop(container_id, 30)
        return (await lab.inspect(container_id)).exit_code

    code = machine.run(main)
    assert code in (0, 143)
    assert machine.ends == [(code, "stopped")]


def test_a_program_that_is_not_there_is_refused_and_the_text_is_kept(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        await present(lab)
        container_id = await lab.engine.create(lab.plan())
        with pytest.raises(Rejected, match="no such file or directory"):
            await lab.engine.start(container_id)
        facts = await lab.inspect(container_id)
        assert (facts.state, facts.exit_code) == ("created", None)
        assert "no such file or directory" in facts.error

    machine.run(main, "refuses")


def test_what_no_registry_has_is_not_found(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        with pytest.raises(NotFound, match="manifest unknown"):
            await lab.engine.pull("absent")

    machine.run(main)


def test_some_images_come_only_with_the_second_pull(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        assert await lab.engine.image(lab.image) is None
        with pytest.raises(Rejected, match="connection reset"):
            await lab.engine.pull(lab.image)
        assert (await lab.engine.pull(lab.image)).digest

    machine.run(main, "needs-two-pulls")


def test_a_slow_pull_tells_how_far_it_is(machine: Machine) -> None:
    async def main(lab: Lab) -> None:
        told: list[int] = []
        await lab.engine.pull(lab.image, lambda progress: told.append(progress.done_bytes))
        assert told == sorted(told)
        assert told[0] > 0

    machine.run(main, "slow-pull")
    assert machine.loop.now > 20


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("steady", [HealthStatus.HEALTHY]),
        ("slow-start", [HealthStatus.HEALTHY]),
        ("unhealthy-after-60s", [HealthStatus.HEALTHY, HealthStatus.UNHEALTHY]),
        ("flaps", [HealthStatus.HEALTHY, HealthStatus.UNHEALTHY, HealthStatus.HEALTHY]),
    ],
)
def test_health_changes_as_the_image_says(machine: Machine, image: str, expected: list[HealthStatus]) -> None:
    async def main(lab: Lab) -> list[HealthStatus | None]:
        events = await watched(lab)
        container_id = await started(lab, health_check=CHECK)
        assert (await lab.inspect(container_id)).health is HealthStatus.UNKNOWN
        seen: list[HealthStatus | None] = []
        while len(seen) < len(expected):
            await collect(events, "health", within_s=DEADLINE_S)
            seen.append((await lab.inspect(container_id)).health)
        return seen

    assert machine.run(main, image) == expected


def test_probes_count_as_docker_counts_them() -> None:
    second = 1_000_000_000
    check = {"Interval": 5 * second, "Retries": 2, "StartPeriod": 12 * second}
    never = behaviour.Life(passes=((0.0, False),))
    assert list(behaviour.health_changes(never, check)) == [(20.0, "unhealthy")]
    late = behaviour.Life(passes=((0.0, False), (11.0, True), (30.0, False)))
    assert list(behaviour.health_changes(late, check)) == [(15.0, "healthy"), (35.0, "unhealthy")]
    assert list(behaviour.health_changes(late, check, begun_s=29.0)) == [(20.0, "unhealthy")]
