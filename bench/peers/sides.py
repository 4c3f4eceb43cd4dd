"""Who is compared: each keeps a service of small containers running in an Engine of its own.

The bare Engine (with somebody who knows how many of its requests at once are fastest), Homeport, and Docker Swarm.
All three Engines are the same program with the same options, in network namespaces of their own.
"""

import asyncio
import itertools
import os
import signal
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, Protocol

import aiodocker
from aiodocker.containers import DockerContainer

from bench.peers.watch import Running
from tests.e2e.harness import Installation, eventually
from tests.e2e.hosts import EngineHost

__all__ = ["Bare", "Homeport", "Side", "Swarm", "kill"]

#: What every container runs: a program that ends when it is told to.
COMMAND: Final = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]
MEMORY_MIB: Final = 16
_NAME: Final = "peers"
_MIN_HEALTHY_TIME: Final = "homeport:min-healthy-time"


class Side(Protocol):
    """A service on one Engine. Every verb returns when the wish is taken, or later."""

    host: EngineHost
    running: Running

    def create(self, count: int) -> None: ...

    def scale(self, count: int) -> None: ...

    def roll(self) -> None: ...

    def settled(self) -> bool:
        """Whether the side itself says that the last change is complete."""
        ...

    def remove(self) -> None: ...


def kill(side: Side) -> set[str]:
    """Kill one container's process as the kernel would, and return which ran before."""
    before = side.running.now()
    pid = side.host.docker("inspect", "-f", "{{.State.Pid}}", min(before))
    os.kill(int(pid), signal.SIGKILL)
    return before


class Bare:
    """The Engine's own API with `at_a_time` requests at once. Its verbs return when they are carried out."""

    def __init__(self, host: EngineHost, image: str, runner: asyncio.Runner) -> None:
        self.host = host
        self.running = Running(host.engine.docker_host)
        self.at_a_time = 1
        self._runner = runner
        self._config: dict[str, Any] = {"Image": image, "Cmd": COMMAND, "HostConfig": {"Memory": MEMORY_MIB << 20}}
        self._docker = runner.run(_connect(host.engine.docker_host))
        self._containers: list[DockerContainer] = []

    def create(self, count: int) -> None:
        self._runner.run(self._each(self._start() for _ in range(count)))

    def scale(self, count: int) -> None:
        if (missing := count - len(self._containers)) > 0:
            self.create(missing)
        else:
            self._stop(self._containers[count:])

    def roll(self) -> None:
        """The new ones first, then the old ones."""
        old = list(self._containers)
        self.create(len(old))
        self._stop(old)

    def replace(self, dead: str) -> None:
        """What whoever listens to the Engine does when it says `die`."""
        self._runner.run(self._start())
        self._containers = [each for each in self._containers if each.id != dead]

    def settled(self) -> bool:
        return True

    def remove(self) -> None:
        self._stop(self._containers)

    def close(self) -> None:
        self.running.close()
        self._runner.run(self._docker.close())

    async def _start(self) -> None:
        container = await self._docker.containers.create(self._config)
        self._containers.append(container)
        await container.start()

    def _stop(self, containers: Sequence[DockerContainer]) -> None:
        """Stop all of them, and only then remove them, so that this doesn't count."""
        self._runner.run(self._each(each.stop() for each in containers))
        self._runner.run(self._each(each.delete(force=True) for each in containers))
        self._containers = [each for each in self._containers if each not in containers]

    async def _each(self, works: Iterable[Coroutine[Any, Any, Any]]) -> None:
        gate = asyncio.Semaphore(self.at_a_time)

        async def one(work: Coroutine[Any, Any, Any]) -> None:
            async with gate:
                await work

        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(one(work))


async def _connect(docker_host: str) -> aiodocker.Docker:
    return aiodocker.Docker(url=docker_host)


class Homeport:
    """A service of Homeport's: a control plane, and an agent for the Engine."""

    def __init__(self, host: EngineHost, image: str, homeport: Installation) -> None:
        self.host = host
        self.running = Running(host.engine.docker_host)
        self._homeport = homeport
        self._ecs = homeport.ecs
        self._app = {"name": "app", "image": image, "command": COMMAND, "memory": MEMORY_MIB}
        self._versions = itertools.count()

    def processes(self) -> list[int]:
        """Return the ids of the processes that there are beside the Engine's."""
        return [self._homeport.control_plane.pid, self._homeport.daemons[-1].pid]

    def create(self, count: int) -> None:
        self._ecs.create_service(
            serviceName=_NAME, taskDefinition=self._register(), desiredCount=count,
            tags=[{"key": _MIN_HEALTHY_TIME, "value": "5"}],
        )  # fmt: skip

    def scale(self, count: int) -> None:
        self._ecs.update_service(service=_NAME, desiredCount=count)

    def roll(self) -> None:
        self._ecs.update_service(service=_NAME, taskDefinition=self._register())

    def without_looking(self) -> None:
        """From now on a task is healthy as soon as it runs."""
        service = self._describe()["serviceArn"]
        self._ecs.tag_resource(resourceArn=service, tags=[{"key": _MIN_HEALTHY_TIME, "value": "0"}])

    def settled(self) -> bool:
        service = self._describe()
        (deployment, *others) = service["deployments"]
        return (
            not others
            and deployment["rolloutState"] == "COMPLETED"
            and service["runningCount"] == service["desiredCount"]
        )

    def remove(self) -> None:
        self._ecs.delete_service(service=_NAME, force=True)
        eventually(lambda: self._describe()["status"] == "INACTIVE", within_s=60)

    def close(self) -> None:
        self.running.close()

    def _register(self) -> str:
        version = [{"name": "VERSION", "value": str(next(self._versions))}]
        return self._homeport.register(_NAME, {**self._app, "environment": version})

    def _describe(self) -> Any:
        (service,) = self._ecs.describe_services(services=[_NAME])["services"]
        return service


class Swarm:
    """A service of Docker Swarm's: a swarm of this one Engine."""

    def __init__(self, host: EngineHost, image: str) -> None:
        self.host = host
        self.running = Running(host.engine.docker_host)
        self._image = image
        self._versions = itertools.count()
        host.docker("swarm", "init", "--advertise-addr", host.address, "--listen-addr", host.address)

    def create(self, count: int) -> None:
        # No published port: so on the Engine's bridge, as the others are, and not on an overlay.
        self.host.docker(
            "service", "create", "--detach", "--no-resolve-image", "--name", _NAME, "--replicas", str(count),
            "--limit-memory", f"{MEMORY_MIB}m", self._image, *COMMAND,
        )  # fmt: skip

    def scale(self, count: int) -> None:
        self.host.docker("service", "scale", "--detach", f"{_NAME}={count}")

    def roll(self, *options: str) -> None:
        version = f"VERSION={next(self._versions)}"
        self.host.docker(
            "service", "update", "--detach", "--no-resolve-image", "--env-add", version, *options, _NAME
        )  # fmt: skip

    def roll_at_once(self) -> None:
        """All at the same time, the new ones first; from then on the dead are replaced without a pause."""
        self.roll("--update-parallelism", "0", "--update-order", "start-first", "--restart-delay", "0s")

    def settled(self) -> bool:
        """Whether no update is under way; its last 5 s are Swarm's look whether the last ones stay up."""
        state = self.host.docker("service", "inspect", "-f", "{{with .UpdateStatus}}{{.State}}{{end}}", _NAME)
        return state.strip() in {"", "completed"}

    def remove(self) -> None:
        self.host.docker("service", "rm", _NAME)

    def close(self) -> None:
        self.running.close()
