"""A large fleet: tasks placed per second through the real protocol, and what the fleet costs while nothing happens.

5,000 simulated hosts, in a process of their own, hold sessions with one control plane. Of 50,000 tasks 20,000 are
placed by RunTask with count=10, signed and durable like any other, from a few connections, the others by services of
5,000. A task counts once its host was sent the assignment, has reported RUNNING, and that is durable. Then all rests.
"""

import asyncio
import json
import os
import re
import resource
import time
from typing import Final

import aiohttp
import psutil

from bench.common import Json, signed
from tests.e2e.harness import Daemon, Installation

__all__ = ["fleet"]

HOSTS: Final = 5000
TASKS: Final = 20_000
SERVICES: Final = 6
#: ECS's limit of tasks per service.
_TASKS_OF_SERVICE: Final = 5000
_AT_A_TIME: Final = 10  # RunTask's limit
_CONNECTIONS: Final = 16
#: Placing stops here, so that a slow machine gets a figure too.
_PLACE_WITHIN_S: Final = 40.0
_SETTLE_S: Final = 5.0
_IDLE_S: Final = 15.0
_TARGET: Final = "AmazonEC2ContainerServiceV20141113.RunTask"


def fleet(homeport: Installation, *, hosts: int = HOSTS, tasks: int = TASKS, services: int = SERVICES) -> Json:
    """Start a control plane and its hosts, place the tasks, and look at both at rest. Takes two minutes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each host; the daemons inherit it
    control_plane = homeport.start_control_plane("--heartbeat", "5")
    began = time.monotonic()
    simulated = homeport.simulate_hosts(hosts)
    joining_s = time.monotonic() - began
    processes = {"control_plane": control_plane, "simulated_hosts": simulated}
    return {
        "hosts": hosts,
        "joining": {"seconds": round(joining_s, 1), "hosts_per_second": round(hosts / joining_s)},
        "placement": _place(homeport, processes, tasks),
        "placement_by_services": _serve(homeport, processes, tasks, services),
        "idle": _rest(control_plane, hosts),
        "budget": {
            "placement": ">= 7,500 tasks/s (the client, the simulated hosts and the control plane share the cores)",
            "idle": "<= 25 % of a core, <= 400 MB, with 5,000 hosts and 50,000 tasks",
        },
    }


def _place(homeport: Installation, processes: dict[str, Daemon], tasks: int) -> Json:
    """Place the tasks and wait until they all run; how many a second, and the CPU time of one."""
    definition = homeport.register("fleet", {"name": "app", "image": "busybox", "memory": 16})
    cpu = {name: _cpu_s(process) for name, process in processes.items()}
    load_before, began = os.getloadavg()[0], time.monotonic()
    asked = asyncio.run(_ask(homeport, definition, tasks // _AT_A_TIME))
    running, took = _wait_until_running(homeport, asked * _AT_A_TIME, began)
    return {
        "how": f"RunTask with count={_AT_A_TIME} from {_CONNECTIONS} connections, until RUNNING is durable",
        "tasks": running,
        "seconds": round(took, 2),
        "per_second": round(running / took),
        "cpu_ms_per_task": {
            name: round((_cpu_s(process) - cpu[name]) / running * 1000, 3) for name, process in processes.items()
        },
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
    }


def _serve(homeport: Installation, processes: dict[str, Daemon], already: int, services: int) -> Json:
    """Create the services and wait until all of their tasks run too."""
    definition = homeport.register("served", {"name": "app", "image": "busybox", "memory": 16})
    cpu = {name: _cpu_s(process) for name, process in processes.items()}
    load_before, began = os.getloadavg()[0], time.monotonic()
    for number in range(services):
        homeport.ecs.create_service(
            serviceName=f"served-{number}", taskDefinition=definition, desiredCount=_TASKS_OF_SERVICE
        )
    running, took = _wait_until_running(homeport, already + services * _TASKS_OF_SERVICE, began)
    placed = running - already
    return {
        "how": f"{services} services of {_TASKS_OF_SERVICE} tasks, until RUNNING is durable",
        "tasks": placed,
        "seconds": round(took, 2),
        "per_second": round(placed / took),
        "cpu_ms_per_task": {
            name: round((_cpu_s(process) - cpu[name]) / placed * 1000, 3) for name, process in processes.items()
        },
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
    }


async def _ask(homeport: Installation, definition: str, requests: int) -> int:
    """Send this many RunTask requests, or as many as there is time for; return how many were answered."""
    key = json.loads((homeport.directory / "cp/controlplane/credentials.json").read_text())
    url = homeport.endpoint["local_url"]
    body = {"taskDefinition": definition, "count": _AT_A_TIME}
    headers, text = signed(url, _TARGET, body, key_id=key["access_key_id"], secret=key["secret_access_key"])
    deadline = time.monotonic() + _PLACE_WITHIN_S
    left, answered = iter(range(requests)), 0

    async def ask(http: aiohttp.ClientSession) -> None:
        nonlocal answered
        for _ in left:
            if time.monotonic() > deadline:
                return
            async with http.post(url + "/", data=text, headers=headers) as answer:
                document = await answer.json(content_type=None)
                assert answer.status == 200, document
                assert document["failures"] == [], document["failures"][:1]
            answered += 1

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(ask(http))
    return answered


def _wait_until_running(homeport: Installation, tasks: int, began: float) -> tuple[int, float]:
    """Return how many tasks run in the end, and how long that took."""
    while True:
        running, now = _running(homeport), time.monotonic()
        if running >= tasks or now - began > _PLACE_WITHIN_S + 10:
            return running, now - began
        time.sleep(0.05)


def _running(homeport: Installation) -> int:
    # A counter that the state keeps, so that asking costs the control plane next to nothing.
    found = re.search(r'^homeport_tasks\{desired="RUNNING",status="RUNNING"\} (\S+)', homeport.get("/metrics"), re.M)
    assert found, "the metric is gone"
    return int(float(found[1]))


def _rest(control_plane: Daemon, hosts: int) -> Json:
    """CPU and memory while only heartbeats come."""
    time.sleep(_SETTLE_S)
    process = psutil.Process(control_plane.pid)
    cpu_s, began = _cpu_s(control_plane), time.monotonic()
    time.sleep(_IDLE_S)  # a measurement needs its time
    took = time.monotonic() - began
    return {
        "hosts": hosts,
        "cpu_percent_of_a_core": round((_cpu_s(control_plane) - cpu_s) / took * 100, 1),
        "rss_mb": round(process.memory_info().rss / 1e6, 1),
        "load_average": os.getloadavg()[0],
    }


def _cpu_s(daemon: Daemon) -> float:
    return float(sum(psutil.Process(daemon.pid).cpu_times()[:2]))
