"""Containers: what Homeport adds to what the Engine itself needs. Each pair of figures is from one run, in turn."""

import asyncio
import contextlib
import os
import signal
import time
from datetime import datetime
from typing import Any

import aiodocker

from bench.common import Json, summary
from tests.e2e.harness import Installation, eventually

__all__ = ["restart_after_death", "start_twenty"]

COUNT = 20
#: Bridge starts in parallel at which the Engine itself is fastest on two cores.
BEST_CONCURRENCY = 4


def start_twenty(homeport: Installation, image: str, rounds: int) -> Json:
    """20 small containers, image present: RunTask until all RUNNING, over create + start by the Engine's own API."""
    definition = homeport.register(
        "bench", {"name": "app", "image": image, "command": ["sleep", "600"], "memory": 16, "stopTimeout": 1}
    )
    ours: list[float] = []
    engine: list[float] = []
    for _ in range(rounds):
        engine.append(asyncio.run(_engine_start(image)))
        ours.append(_homeport_start(homeport, definition))
    return {
        "homeport_s": summary(ours),
        "engine_s": summary(engine),
        "ratio": summary([a / b for a, b in zip(ours, engine, strict=True)]),
        "budget": "<= 1.10",
    }


def _homeport_start(homeport: Installation, definition: str) -> float:
    began = time.monotonic()
    arns = [arn for _ in range(COUNT // 10) for arn in homeport.run(definition, count=10)]

    def all_running() -> bool:
        tasks = homeport.ecs.describe_tasks(tasks=arns)["tasks"]
        return all(task["lastStatus"] == "RUNNING" for task in tasks)

    eventually(all_running, within_s=120, every_s=0.1)
    took = time.monotonic() - began
    for arn in arns:
        homeport.ecs.stop_task(task=arn)
    eventually(lambda: not homeport.containers("status=running"), within_s=120)
    return took


async def _engine_start(image: str) -> float:
    """Seconds the Engine's own API needs to create and start COUNT containers at its best concurrency."""
    gate = asyncio.Semaphore(BEST_CONCURRENCY)
    config: dict[str, Any] = {"Image": image, "Cmd": ["sleep", "600"], "HostConfig": {"Memory": 16 << 20}}
    async with aiodocker.Docker() as docker:

        async def one(number: int) -> aiodocker.containers.DockerContainer:
            async with gate:
                container = await docker.containers.create(config, name=f"bench-floor-{number}")
                await container.start()
                return container

        began = time.monotonic()
        made = await asyncio.gather(*(one(number) for number in range(COUNT)))
        took = time.monotonic() - began

        async def remove(container: aiodocker.containers.DockerContainer) -> None:
            async with gate:
                await container.delete(force=True, v=True)

        await asyncio.gather(*(remove(container) for container in made))
    return took


def restart_after_death(homeport: Installation, image: str, rounds: int) -> Json:
    """A container is killed: seconds until it runs again, under our restart policy over the Engine's own."""
    policy = {"enabled": True, "restartAttemptPeriod": 60}
    tags = [{"key": "homeport:restart-attempt-period", "value": "1"}]
    app = {"name": "app", "image": image, "command": ["sleep", "600"], "restartPolicy": policy, "stopTimeout": 1}
    (arn,) = homeport.run(homeport.register("bench-restart", app, tags=tags))
    ours_id = homeport.wait(arn, "RUNNING")["containers"][0]["runtimeId"]
    with contextlib.suppress(AssertionError):  # left behind by a run that was killed
        homeport.docker("rm", "-f", "bench-always")
    always_id = homeport.docker(
        "run", "-d", "--restart=always", "--memory=64m", "--name", "bench-always", image, "sleep", "600"
    )
    ours: list[float] = []
    engine: list[float] = []
    try:
        for _ in range(rounds):
            engine.append(_kill_and_wait(homeport, always_id))
            ours.append(_kill_and_wait(homeport, ours_id))
    finally:
        homeport.docker("rm", "-f", "bench-always")
        homeport.ecs.stop_task(task=arn)
    return {
        "homeport_s": summary(ours),
        "engine_restart_always_s": summary(engine),
        "ratio": summary([a / b for a, b in zip(ours, engine, strict=True)]),
        "budget": "<= 1.10",
    }


def _kill_and_wait(homeport: Installation, container: str) -> float:
    """Seconds from the Engine's FinishedAt to its next StartedAt; both are the Engine's own times."""
    before = _started(homeport, container)
    # Both policies back off from a container that dies at once: let it have run for longer than either asks.
    eventually(lambda: time.time() - before > 11, within_s=30)
    # Not `docker kill`: the Engine's own policy takes that for a wish and doesn't restart.
    os.kill(int(homeport.docker("inspect", "-f", "{{.State.Pid}}", container)), signal.SIGKILL)
    eventually(lambda: _started(homeport, container) > before, within_s=30, every_s=0.05)
    times = homeport.docker("inspect", "-f", "{{.State.FinishedAt}} {{.State.StartedAt}}", container).split()
    finished, started = (_epoch(text) for text in times)
    return started - finished


def _started(homeport: Installation, container: str) -> float:
    return _epoch(homeport.docker("inspect", "-f", "{{.State.StartedAt}}", container))


def _epoch(text: str) -> float:
    """Return a time as the Engine writes it in seconds since the epoch."""
    head, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(head + "+00:00").timestamp() + float(f"0.{fraction or 0}")
