"""What the daemons cost while nothing happens: resident memory and CPU, idle and with 20 tasks."""

import time

import psutil

from bench.common import Json
from tests.e2e.harness import Daemon, Installation, eventually

__all__ = ["footprint"]


def footprint(homeport: Installation, image: str, *, seconds: float = 20.0) -> Json:
    """Measure both daemons, first idle with one host, then with 20 running tasks."""
    control_plane, agent = homeport.control_plane, homeport.daemons[-1]
    result: Json = {"idle": _observe(control_plane, agent, seconds)}
    definition = homeport.register(
        "footprint", {"name": "app", "image": image, "command": ["sleep", "600"], "memory": 16, "stopTimeout": 1}
    )
    arns = [arn for _ in range(2) for arn in homeport.run(definition, count=10)]
    for arn in arns:
        homeport.wait(arn, "RUNNING", within_s=120)
    result["20 tasks"] = _observe(control_plane, agent, seconds)
    for arn in arns:
        homeport.ecs.stop_task(task=arn)
    eventually(lambda: not homeport.containers("status=running"), within_s=120)
    result["budget"] = {"control plane, idle": "<= 1 %, <= 90 MB", "agent, 20 tasks": "<= 1 %, <= 60 MB"}
    return result


def _observe(control_plane: Daemon, agent: Daemon, seconds: float) -> Json:
    processes = {"control_plane": psutil.Process(control_plane.pid), "agent": psutil.Process(agent.pid)}
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    began = time.monotonic()
    time.sleep(seconds)  # a measurement needs its time
    took = time.monotonic() - began
    return {
        name: {
            "cpu_percent_of_a_core": round((sum(process.cpu_times()[:2]) - before[name]) / took * 100, 2),
            "rss_mb": round(process.memory_info().rss / 1e6, 1),
            "uss_mb": round(process.memory_full_info().uss / 1e6, 1),
        }
        for name, process in processes.items()
    }
