"""Logs: what shipping every line costs beside the Engine's json-file driver alone, and how fast a flood is shipped.

The containers, their lines and the Engine are the same in both; what differs is who reads the files.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import psutil

from bench.common import Json, summary
from tests.e2e.harness import Installation, eventually
from tests.e2e.logs import GROUP, awslogs, chatter, read_all, task_id

__all__ = ["logs"]

CONTAINERS: Final = 200
PER_SECOND: Final = 5
SECONDS: Final = 60
FLOOD_LINES: Final = 300_000
FLOOD_GROUP: Final = "/bench/flood"

_ALONE: Final = {"logDriver": "json-file", "options": {"max-size": "16m", "max-file": "4"}}


def logs(homeport: Installation, image: str, rounds: int) -> Json:
    """Measure the steady load once with shipping and once without, and floods of one container in turn."""
    return {
        "steady": {
            "what": f"{CONTAINERS} containers, {CONTAINERS * PER_SECOND} lines/s in total for {SECONDS} s",
            "json_file_alone": _steady(homeport, image, _ALONE),
            "shipped": _steady(homeport, image, awslogs()),
        },
        "flood": _floods(homeport, image, rounds),
        "budget": "every line once; CPU beside json-file alone",
    }


def _steady(homeport: Installation, image: str, log: dict[str, Any]) -> Json:
    """Run the containers for a minute; return the CPU of everyone on the way while all of them talk."""
    app = {**chatter(image, seconds=SECONDS, per_second=PER_SECOND), "logConfiguration": log}
    definition = homeport.register("bench-chatter", app)
    arns = [arn for _ in range(CONTAINERS // 10) for arn in homeport.run(definition, count=10)]
    for arn in arns:
        homeport.wait(arn, "RUNNING", within_s=180)
    watched = {
        "agent": psutil.Process(homeport.daemons[-1].pid),
        "control_plane": psutil.Process(homeport.control_plane.pid),
        "engine": _engine(),
    }
    before = {name: sum(process.cpu_times()[:2]) for name, process in watched.items()}
    began = time.monotonic()
    time.sleep(20)  # a measurement needs its time
    took = time.monotonic() - began
    result: Json = {
        f"{name}_cpu_percent_of_a_core": round((sum(process.cpu_times()[:2]) - before[name]) / took * 100, 1)
        for name, process in watched.items()
    }
    result |= {f"{name}_rss_mb": round(process.memory_info().rss / 1e6, 1) for name, process in watched.items()}
    for arn in arns:
        homeport.wait(arn, "STOPPED", within_s=SECONDS + 180)
    if log["logDriver"] == "awslogs":
        client = homeport.client("logs")
        lines = PER_SECOND * SECONDS
        eventually(lambda: _count(client, GROUP, arns[-1]) == lines, within_s=60, every_s=1)
        result["lines_missing_or_doubled"] = sum(abs(lines - _count(client, GROUP, arn)) for arn in arns)
    return result


def _count(client: Any, group: str, arn: str) -> int:
    """How many events of a task's are kept."""
    return sum(1 for _ in read_all(client, group, f"ecs/app/{task_id(arn)}"))


def _engine() -> psutil.Process:
    """Return the Docker daemon's process."""
    (engine,) = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "dockerd"]
    return engine


def _floods(homeport: Installation, image: str, rounds: int) -> Json:
    """One container says FLOOD_LINES lines of 100 characters as fast as it can."""
    program = f'BEGIN {{ for (n = 0; n < {FLOOD_LINES}; n++) print "line", n, "{"x" * 85}" }}'
    app = {"name": "app", "image": image, "command": ["awk", program], "memory": 32}
    definitions = {
        name: homeport.register(f"bench-flood-{name}", {**app, "logConfiguration": log})
        for name, log in (("alone", _ALONE), ("shipped", awslogs(FLOOD_GROUP)))
    }
    alone: list[float] = []
    shipped: list[float] = []
    kept: list[float] = []
    lost: list[int] = []
    client = homeport.client("logs")
    for _ in range(rounds):
        alone.append(_flood(homeport, definitions["alone"])[0])
        seconds, arn = _flood(homeport, definitions["shipped"])
        shipped.append(seconds)
        kept.append(seconds + _seconds(lambda arn=arn: _flood_kept(homeport, arn)))  # type: ignore[misc]
        lost.append(FLOOD_LINES - _count(client, FLOOD_GROUP, arn))
    return {
        "lines": FLOOD_LINES,
        "container_s": {"json_file_alone": summary(alone), "shipped": summary(shipped)},
        "container_ratio": summary([a / b for a, b in zip(shipped, alone, strict=True)]),
        "until_all_kept_s": summary(kept),
        "lines_not_kept": lost,
        "lines_per_second": summary([FLOOD_LINES / seconds for seconds in kept]),
    }


def _flood(homeport: Installation, definition: str) -> tuple[float, str]:
    (arn,) = homeport.run(definition)
    homeport.wait(arn, "STOPPED", within_s=180)
    task = homeport.task(arn)
    return (task["executionStoppedAt"] - task["startedAt"]).total_seconds(), arn


def _seconds(wait: Callable[[], None]) -> float:
    began = time.monotonic()
    wait()
    return time.monotonic() - began


def _flood_kept(homeport: Installation, arn: str) -> None:
    """Wait until the last line is kept."""
    client, stream = homeport.client("logs"), f"ecs/app/{task_id(arn)}"

    def complete() -> bool:
        events = client.get_log_events(logGroupName=FLOOD_GROUP, logStreamName=stream, limit=1)["events"]
        return bool(events) and events[-1]["message"].startswith(f"line {FLOOD_LINES - 1} ")

    eventually(complete, within_s=180, every_s=0.1)
