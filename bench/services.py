"""Services beside Docker Swarm's, on the same Engine, in turn: start 20, recover one, roll 10, scale to zero.

The Engine's own API is the floor where it can do the same: create + start at its best concurrency, and create + start
on a container's die event. Times of containers are the Engine's own (StartedAt, FinishedAt).
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import aiodocker

from bench.common import Json, summary
from bench.containers import engine_start, epoch
from tests.e2e.harness import Installation, eventually

__all__ = ["services"]

STARTED: Final = 20
ROLLED: Final = 10
_NAME: Final = "bench"
_SWARM_NAME: Final = "bench-swarm"
#: Each look is a `docker ps`, which takes its share of the same cores.
_POLL_S: Final = 0.1


class _Swarm:
    """Docker Swarm with one node: this Engine."""

    def __init__(self, homeport: Installation, image: str) -> None:
        self._docker = homeport.docker
        self._image = image

    def begin(self) -> None:
        self._docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:0")

    def end(self) -> None:
        self._docker("swarm", "leave", "--force")

    def create(self, replicas: int) -> None:
        self._docker(
            *("service", "create", "--detach", "--name", _SWARM_NAME, "--replicas", str(replicas)),
            *("--stop-grace-period", "1s", "--limit-memory", "16m", self._image, "sleep", "600"),
        )

    def scale(self, replicas: int) -> None:
        self._docker("service", "scale", "--detach", f"{_SWARM_NAME}={replicas}")

    def roll(self, version: str, *options: str) -> None:
        self._docker("service", "update", "--detach", "--env-add", f"VERSION={version}", *options, _SWARM_NAME)

    def remove(self) -> None:
        self._docker("service", "rm", _SWARM_NAME)

    def running(self) -> list[str]:
        filters = (f"label=com.docker.swarm.service.name={_SWARM_NAME}", "status=running")
        return self._docker("ps", "-q", "--no-trunc", *(f"--filter={each}" for each in filters)).split()


class _Service:
    """The same as a service of ours."""

    def __init__(self, homeport: Installation, image: str) -> None:
        self._homeport = homeport
        self._ecs = homeport.ecs
        self._image = image

    def _register(self, version: str) -> str:
        return self._homeport.register(
            "bench-service",
            {
                "name": "app", "image": self._image, "command": ["sleep", "600"], "memory": 16, "stopTimeout": 1,
                "environment": [{"name": "VERSION", "value": version}],
            },
        )  # fmt: skip

    def create(self, replicas: int) -> None:
        self._ecs.create_service(serviceName=_NAME, taskDefinition=self._register("1"), desiredCount=replicas)

    def scale(self, replicas: int) -> None:
        self._ecs.update_service(service=_NAME, desiredCount=replicas)

    def roll(self, version: str) -> None:
        self._ecs.update_service(service=_NAME, taskDefinition=self._register(version))

    def remove(self) -> None:
        self._ecs.delete_service(service=_NAME, force=True)
        eventually(lambda: self._describe()["status"] == "INACTIVE", within_s=60)

    def running(self) -> list[str]:
        return self._homeport.containers("status=running")

    def steady(self) -> bool:
        service = self._describe()
        return (
            len(service["deployments"]) == 1
            and service["deployments"][0]["rolloutState"] == "COMPLETED"
            and service["runningCount"] == service["desiredCount"]
        )

    def _describe(self) -> Any:
        (service,) = self._ecs.describe_services(services=[_NAME])["services"]
        return service


def services(homeport: Installation, image: str, rounds: int) -> Json:
    """Measure all four, ours and Swarm's in turn."""
    swarm, ours = _Swarm(homeport, image), _Service(homeport, image)
    figures: dict[str, dict[str, list[float]]] = {}

    def note(what: str, whose: str, seconds: float) -> None:
        figures.setdefault(what, {}).setdefault(whose, []).append(seconds)

    swarm.begin()
    try:
        for number in range(rounds):
            note("start_20", "engine_s", asyncio.run(engine_start(image)))
            note("recover_one", "engine_s", asyncio.run(_engine_recovery(image)))
            _life(homeport, ours, "homeport_s", number, note)
            _life(homeport, swarm, "swarm_s", number, note)
    finally:
        swarm.end()
    return {what: _compared(sides) for what, sides in figures.items()}


def _life(
    homeport: Installation, side: "_Swarm | _Service", whose: str, number: int, note: Callable[[str, str, float], None]
) -> None:
    """Let a service live once, from its creation to its removal."""
    note("start_20", whose, _started(homeport, side))
    _rest(side)
    note("recover_one", whose, _recovery(homeport, side))
    side.scale(ROLLED)
    eventually(lambda: len(side.running()) == ROLLED, within_s=120, every_s=_POLL_S)
    _rest(side)
    _roll(side, whose, number, note)
    note("scale_to_zero", whose, _took(lambda: side.scale(0), lambda: not side.running()))
    side.remove()


def _started(homeport: Installation, side: "_Swarm | _Service") -> float:
    """Create the service; seconds until the last of its containers has started, by the Engine's own times."""
    began = time.time()
    side.create(STARTED)
    eventually(lambda: len(side.running()) == STARTED, within_s=300, every_s=1.0)
    times = homeport.docker("inspect", "-f", "{{.State.StartedAt}}", *side.running()).split()
    return max(map(epoch, times)) - began


def _rest(side: "_Swarm | _Service") -> None:
    if isinstance(side, _Service):
        eventually(side.steady, within_s=120)


def _roll(side: "_Swarm | _Service", whose: str, number: int, note: Callable[[str, str, float], None]) -> None:
    note("roll_10", whose, _rolled(side, lambda: side.roll(f"a{number}")))
    if isinstance(side, _Swarm):
        # At its fastest, as ours is by default: all at once, the new ones first.
        fastest = ("--update-parallelism", "0", "--update-order", "start-first")
        note("roll_10", "swarm_at_once_s", _rolled(side, lambda: side.roll(f"b{number}", *fastest)))


def _took(act: Callable[[], None], done: Callable[[], bool]) -> float:
    began = time.monotonic()
    act()
    eventually(done, within_s=300, every_s=_POLL_S)
    return time.monotonic() - began


def _rolled(side: "_Swarm | _Service", act: Callable[[], None]) -> float:
    """Seconds until only new containers run, as many as before."""
    old = set(side.running())

    def done() -> bool:
        running = set(side.running())
        return len(running) == len(old) and not running & old

    return _took(act, done)


def _recovery(homeport: Installation, side: "_Swarm | _Service") -> float:
    """Kill one container; seconds from its end to the start of the one that takes its place."""
    before = set(side.running())
    victim = sorted(before)[0]
    os.kill(int(homeport.docker("inspect", "-f", "{{.State.Pid}}", victim)), signal.SIGKILL)

    def replacement() -> set[str] | None:
        found = set(side.running()) - before
        return found or None

    found = eventually(replacement, within_s=60, every_s=_POLL_S)
    assert found is not None
    started = homeport.docker("inspect", "-f", "{{.State.StartedAt}}", *found)
    return epoch(started) - epoch(homeport.docker("inspect", "-f", "{{.State.FinishedAt}}", victim))


async def _engine_recovery(image: str) -> float:
    """The floor: somebody who listens to the Engine creates and starts a container as soon as one dies."""
    config: dict[str, Any] = {"Image": image, "Cmd": ["sleep", "600"], "HostConfig": {"Memory": 16 << 20}}
    async with aiodocker.Docker() as docker:
        dead = await docker.containers.create(config, name="bench-recover-a")
        made = [dead]
        try:
            await dead.start()
            subscriber = docker.events.subscribe()
            os.kill((await dead.show())["State"]["Pid"], signal.SIGKILL)
            while (event := await subscriber.get()) is not None:
                if event.get("Action") == "die" and event["Actor"]["ID"] == dead.id:
                    break
            new = await docker.containers.create(config, name="bench-recover-b")
            made.append(new)
            await new.start()
            return epoch((await new.show())["State"]["StartedAt"]) - epoch((await dead.show())["State"]["FinishedAt"])
        finally:
            for container in made:
                await container.delete(force=True, v=True)


def _compared(sides: dict[str, list[float]]) -> Json:
    ours = sides["homeport_s"]
    compared: Json = {whose: summary(seconds) for whose, seconds in sides.items()}
    for whose, seconds in sides.items():
        if whose != "homeport_s":
            ratios = [a / b for a, b in zip(ours, seconds, strict=True)]
            compared[f"ratio_to_{whose.removesuffix('_s')}"] = summary(ratios)
    if "engine_s" in sides:
        compared["budget"] = "ratio_to_engine <= 1.10"
    return compared
