"""What a fleet goes through, phase by phase, and what is measured meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from bench.common import Json
from bench.fleet.client import Client
from bench.fleet.cluster import Cluster, Cpu, until
from bench.fleet.parts import profiling
from bench.fleet.probes import Probes
from bench.fleet.stalls import read_delays, stalls_since
from bench.fleet.workload import EPHEMERAL

__all__ = ["PHASES", "Scale", "Trial"]

_AT_A_TIME: Final = 10  # RunTask's limit
#: A phase that takes longer than this has failed.
_PATIENCE_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.1
#: The family and the service that probes ask for.
_PROBED: Final = "probed"


class Scale(NamedTuple):
    """How large a trial is. Tasks: per host, in the end, `run_tasks` by RunTask, and one of each service."""

    hosts: int
    run_tasks: int = 4
    services: int = 6
    settle_s: float = 5.0
    idle_s: float = 15.0
    #: Tasks that are placed while a profile is taken.
    profiled_tasks: int = 10_000
    #: Seconds after which a task counts as healthy; the default of services.
    min_healthy_s: int = 5
    #: Seconds after which the tasks of lost hosts are replaced, the least that can be asked for.
    lost_after_s: int = 5

    @property
    def service_tasks(self) -> int:
        """Tasks of one service; ECS allows 5,000."""
        return min(self.hosts, 5000)


class _Count(NamedTuple):
    """How many tasks were RUNNING: `reported` by the hosts in reports of this name, `reached` by the control plane."""

    report: str
    reported: int
    reached: int


class Trial:
    """One fleet on its way through the phases."""

    def __init__(self, cluster: Cluster, client: Client, scale: Scale) -> None:
        self.cluster = cluster
        self.client = client
        self.scale = scale
        self._probed_task = ""

    # ------------------------------------------------------------ phases, in their order

    async def join(self) -> Json:
        """All hosts register, a few at a time."""
        cluster, hosts = self.cluster, self.scale.hosts
        before = cluster.cpu()
        cluster.start_hosts()
        await until(lambda: cluster.told("joined") == hosts, within_s=_PATIENCE_S, what="all hosts have joined")
        took, used = cluster.span(), cluster.cpu().since(before)
        return {
            "seconds": round(took, 2),
            "per_second": round(hosts / took),
            "cpu_ms_per_host": _cpu_ms(used, hosts),
        }

    async def storm(self) -> Json:
        """All hosts connect at once."""
        figures: Json = {}
        async with self._measured(figures, "host", self.scale.hosts):
            began = time.monotonic()
            for each in self.cluster.groups:
                each.connect()
            figures |= await self._connected(began)
        return figures

    async def run_tasks(self) -> Json:
        """Place tasks by RunTask, until all are RUNNING and that is durable."""
        await self._prepare_probes()
        definition = await self._define("app")
        tasks = self.scale.run_tasks * self.scale.hosts
        figures: Json = {"tasks": tasks}
        async with self._measured(figures, "task", tasks):
            figures |= await self._run(definition, tasks)
        return figures

    async def service(self) -> Json:
        """One service with a task for each host: until all run, and until its deployment is COMPLETED."""
        tasks = self.scale.service_tasks
        figures: Json = {"tasks": tasks}
        before = await self._count("served")
        async with self._measured(figures, "task", tasks):
            began = time.monotonic()
            await self._create_service(0, await self._define("served"))
            await self._until_running(before, tasks)
            figures["until_running_s"] = round(time.monotonic() - began, 2)
            figures["seconds"] = round(await self._until_completed(began), 2)
        return figures

    async def services(self) -> Json:
        """The other services, created one right after another, until all of their tasks run."""
        definition = await self._define("served")
        tasks = (self.scale.services - 1) * self.scale.service_tasks
        figures: Json = {"tasks": tasks}
        before = await self._count("served")
        async with self._measured(figures, "task", tasks):
            began = time.monotonic()
            for number in range(1, self.scale.services):
                await self._create_service(number, definition)
            await self._until_running(before, tasks)
            figures |= _rate(tasks, time.monotonic() - began)
        return figures

    async def idle(self) -> Json:
        """Nothing happens but heartbeats."""
        await asyncio.sleep(self.scale.settle_s)
        before, began = self.cluster.cpu(), time.monotonic()
        await asyncio.sleep(self.scale.idle_s)
        took, used = time.monotonic() - began, self.cluster.cpu().since(before)
        return {
            "tasks": self.scale.run_tasks * self.scale.hosts + self.scale.services * self.scale.service_tasks,
            "cpu_percent_of_a_core": round(used.control_plane / took * 100, 1),
            "rss_mb": round(self.cluster.rss_mb(), 1),
        }

    async def deployment(self) -> Json:
        """A new revision of a service, rolled out with ECS's defaults, until it is COMPLETED."""
        definition = await self._define("served")
        figures: Json = {"tasks": self.scale.service_tasks, "of_it_waiting_for_health_s": self.scale.min_healthy_s}
        async with self._measured(figures, "task", self.scale.service_tasks):
            began = time.monotonic()
            await self.client.call("UpdateService", service=_name(0), taskDefinition=definition)
            figures["seconds"] = round(await self._until_completed(began), 2)
        return figures

    async def restart(self) -> Json:
        """kill -9 of the control plane, and its start: until it is ready, and until all hosts are back."""
        cluster = self.cluster
        killed = time.monotonic()
        cluster.homeport.control_plane.kill()
        await until(lambda: cluster.told("sessions") == 0, within_s=_PATIENCE_S, what="the hosts notice the kill")
        began = time.monotonic()
        cluster.restart()
        ready = time.monotonic()
        figures: Json = {
            "until_ready_s": round(ready - began, 2),
            "cpu_s_until_ready": round(cluster.cpu().control_plane, 2),
        }
        async with self._measured(figures, "host", self.scale.hosts):
            figures |= await self._connected(ready)
            figures["since_the_kill_s"] = round(time.monotonic() - killed, 2)
        return figures

    async def loss(self) -> Json:
        """A tenth of the hosts is gone at once: until that is noticed, and until the services' tasks are replaced."""
        cluster = self.cluster
        tags = [{"key": "homeport:lost-after", "value": str(self.scale.lost_after_s)}]
        for number in range(self.scale.services):
            arn = (await self.client.call("DescribeServices", services=[_name(number)]))["services"][0]["serviceArn"]
            await self.client.call("TagResource", resourceArn=arn, tags=tags)
        told = cluster.doomed.tally()["tasks"]
        lost = told["served RUNNING"] - told.get("served STOPPED", 0)
        figures: Json = {"hosts": cluster.doomed.count, "tasks": lost, "lost_after_s": self.scale.lost_after_s}
        left = self.scale.hosts - cluster.doomed.count
        async with self._measured(figures, "task", lost):
            running = cluster.staying.tally()["tasks"]["served RUNNING"]
            reached = await asyncio.to_thread(cluster.reached_running)
            began = time.monotonic()
            cluster.doomed.kill()
            while await asyncio.to_thread(cluster.sessions) > left:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(_LOOK_EVERY_S)
            figures["until_noticed_s"] = round(time.monotonic() - began, 2)
            before = _Count("served RUNNING", running, reached)
            await self._until_reported(before, 1)
            first = time.monotonic()
            await self._until_running(before, lost)
            figures["replacing_s"] = round(time.monotonic() - first, 2)
            figures["seconds"] = round(time.monotonic() - began, 2)
        return figures

    async def parts(self) -> Json:
        """Where the time of placing goes: as `run_tasks`, with a profile being taken."""
        definition = await self._define("app")
        tasks = self.scale.profiled_tasks
        before = self.cluster.cpu()
        with profiling(self.cluster.homeport) as profile:
            figures: Json = {"tasks": tasks, **await self._run(definition, tasks)}
        used = self.cluster.cpu().since(before)
        return {
            **figures,
            "cpu_ms_per_task": _cpu_ms(used, tasks),
            "share": profile.shares,
        }

    # ------------------------------------------------------------ what phases are made of

    @asynccontextmanager
    async def _measured(self, figures: Json, unit: str, units: int) -> AsyncIterator[None]:
        """Add what the block costs, for each unit, and how the API and the event loop do meanwhile."""
        delays = await self._read_delays()
        before = self.cluster.cpu()
        requests = {
            "RunTask": self.client.request("RunTask", taskDefinition=EPHEMERAL),
            "DescribeTasks": self.client.request("DescribeTasks", tasks=[self._probed_task]),
            "DescribeServices": self.client.request("DescribeServices", services=[_PROBED]),
        }
        probes = Probes(self.client, requests if self._probed_task else {})
        async with probes.running():
            yield
            used = self.cluster.cpu().since(before)
        figures[f"cpu_ms_per_{unit}"] = _cpu_ms(used, units)
        figures["api"] = probes.figures()
        figures["event_loop"] = stalls_since(delays, await self._read_delays())

    async def _read_delays(self) -> dict[float, float]:
        return read_delays(await asyncio.to_thread(self.cluster.get, "/metrics"))

    async def _connected(self, began: float) -> Json:
        hosts = self.scale.hosts
        cluster = self.cluster
        await until(lambda: cluster.told("sessions") == hosts, within_s=_PATIENCE_S, what="all hosts are connected")
        connected = time.monotonic()
        await until(lambda: cluster.told("heard_out") == hosts, within_s=_PATIENCE_S, what="all hosts are heard out")
        return {"until_connected_s": round(connected - began, 2), "seconds": round(time.monotonic() - began, 2)}

    async def _define(self, name: str) -> str:
        """Register a revision of the definition of this name and return it. The container is called so, too."""
        container = {"name": name, "image": "busybox", "memory": 16}
        answer = await self.client.call("RegisterTaskDefinition", family=name, containerDefinitions=[container])
        return f"{name}:{answer['taskDefinition']['revision']}"

    async def _prepare_probes(self) -> None:
        await self._define(EPHEMERAL)
        definition = await self._define(_PROBED)
        before = await self._count(_PROBED)
        answer = await self.client.call("RunTask", taskDefinition=definition)
        self._probed_task = answer["tasks"][0]["taskArn"]
        await self.client.call("CreateService", serviceName=_PROBED, taskDefinition=definition, desiredCount=1)
        await self._until_running(before, 2)

    async def _run(self, definition: str, tasks: int) -> Json:
        before = await self._count("app")
        request = self.client.request("RunTask", taskDefinition=definition, count=_AT_A_TIME)
        began = time.monotonic()
        await self.client.send_many(request, tasks // _AT_A_TIME)
        await self._until_running(before, tasks)
        return _rate(tasks, time.monotonic() - began)

    async def _create_service(self, number: int, definition: str) -> None:
        tags = [{"key": "homeport:min-healthy-time", "value": str(self.scale.min_healthy_s)}]
        await self.client.call(
            "CreateService",
            serviceName=_name(number),
            taskDefinition=definition,
            desiredCount=self.scale.service_tasks,
            tags=tags,
        )

    async def _count(self, name: str) -> _Count:
        report = f"{name} RUNNING"
        return _Count(report, self.cluster.tasks(report), await asyncio.to_thread(self.cluster.reached_running))

    async def _until_reported(self, before: _Count, tasks: int) -> None:
        """Wait until the hosts have reported so many tasks RUNNING since."""
        enough = before.reported + tasks
        await until(
            lambda: self.cluster.tasks(before.report) >= enough, within_s=_PATIENCE_S, what=f"{tasks} x {before.report}"
        )

    async def _until_running(self, before: _Count, tasks: int) -> None:
        """Wait until so many tasks have become RUNNING since, and that is durable.

        The control plane, for which being asked is work, is asked at the end only.
        """
        await self._until_reported(before, tasks)
        async with asyncio.timeout(_PATIENCE_S):
            enough = before.reached + tasks
            while await asyncio.to_thread(self.cluster.reached_running) < enough:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(_LOOK_EVERY_S / 5)
            await asyncio.to_thread(self.cluster.make_durable)

    async def _until_completed(self, began: float) -> float:
        """Wait until the first service has one deployment, which is COMPLETED; return the seconds since `began`."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                (service,) = (await self.client.call("DescribeServices", services=[_name(0)]))["services"]
                if [each["rolloutState"] for each in service["deployments"]] == ["COMPLETED"]:
                    return time.monotonic() - began
                await asyncio.sleep(_LOOK_EVERY_S)


#: In this order; each stands on those before.
PHASES: Final = (
    Trial.join,
    Trial.storm,
    Trial.run_tasks,
    Trial.service,
    Trial.services,
    Trial.idle,
    Trial.parts,
    Trial.deployment,
    Trial.restart,
    Trial.loss,
)


def _name(number: int) -> str:
    return f"served-{number}"


def _cpu_ms(used: Cpu, units: int) -> Json:
    return {
        "control_plane": round(used.control_plane / units * 1000, 3),
        "simulated_hosts": round(used.hosts / units * 1000, 3),
    }


def _rate(tasks: int, seconds: float) -> Json:
    return {"seconds": round(seconds, 2), "per_second": round(tasks / seconds)}
