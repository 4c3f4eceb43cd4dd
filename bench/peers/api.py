"""The API beside moto's in-memory mock: three operations, by two kinds of client, the same for both.

    botocore   one client, one request after the other: what a script sees. Most of a request's time is the client's own
    raw        wrk over HTTP, which repeats one signed request: on one connection, and on several for the most there is

Homeport checks every signature and answers when the change is on disk. moto does neither, and starts no task.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.common import Json, signed, summary, wrk
from bench.moto import Moto
from tests.e2e.harness import Installation, installation

__all__ = ["api_beside_moto"]

_TARGET: Final = "AmazonEC2ContainerServiceV20141113."
_CONTAINER: Final = {"name": "app", "image": "busybox", "memory": 16}
_HOSTS: Final = 20
_SECONDS: Final = 1
_MANY: Final = 16


@dataclass(frozen=True, kw_only=True)
class _Server:
    """Where requests go, what is asked, and with which keys."""

    url: str
    ecs: Any
    keys: dict[str, str]
    requests: dict[str, Json]


def api_beside_moto(rounds: int, tell: Callable[[str], None]) -> Json:
    """Measure each operation by each client, Homeport and moto in turn."""
    figures: dict[str, dict[str, list[Json]]] = {}
    with TemporaryDirectory(prefix="homeport-bench-") as directory, installation(Path(directory)) as homeport:
        ours = _homeport(homeport)
        moto = Moto(homeport, _CONTAINER)
        for number in range(rounds):
            tell(f"API, round {number + 1} of {rounds}")
            moto.prepare()  # empty again: its answers take longer the more it has. Homeport keeps all its tasks
            servers = [("homeport", ours), ("moto", _moto(moto))]
            if number % 2:
                servers.reverse()
            for operation in ours.requests:
                for whose, server in servers:
                    for way, measured in _ways(server, operation):
                        figures.setdefault(f"{operation}, {way}", {}).setdefault(whose, []).append(measured)
    return {what: _compared(sides) for what, sides in figures.items()}


def _homeport(homeport: Installation) -> _Server:
    homeport.start_control_plane()
    homeport.simulate_hosts(_HOSTS)
    definition = homeport.register("api", dict(_CONTAINER))
    (task,) = homeport.run(definition)
    homeport.wait(task, "RUNNING")
    key = json.loads((homeport.directory / "cp/controlplane/credentials.json").read_text())
    keys = {"key_id": key["access_key_id"], "secret": key["secret_access_key"]}
    requests = _requests(task, {"taskDefinition": definition})
    return _Server(url=homeport.endpoint["local_url"], ecs=homeport.ecs, keys=keys, requests=requests)


def _moto(moto: Moto) -> _Server:
    return _Server(url=moto.url, ecs=moto.ecs, keys=moto.KEYS, requests=_requests(moto.task, moto.run))


def _requests(task: str, run: Json) -> dict[str, Json]:
    return {
        "DescribeTasks": {"tasks": [task]},
        "RegisterTaskDefinition": {"family": "another", "containerDefinitions": [_CONTAINER]},
        "RunTask": run,
    }


def _ways(server: _Server, operation: str) -> Iterator[tuple[str, Json]]:
    yield "botocore", _botocore(getattr(server.ecs, _SNAKE[operation]), server.requests[operation])
    request = signed(server.url, _TARGET + operation, server.requests[operation], **server.keys)
    for connections in (1, _MANY):
        measured = wrk(server.url, *request, seconds=_SECONDS, connections=connections)
        assert measured.pop("failed") == 0, (server.url, operation, connections)
        yield f"raw, {connections} at once", measured


_SNAKE: Final = {
    "DescribeTasks": "describe_tasks",
    "RegisterTaskDefinition": "register_task_definition",
    "RunTask": "run_task",
}


def _botocore(call: Callable[..., Json], request: Json) -> Json:
    """Call for _SECONDS; return calls per second and percentiles of their milliseconds."""
    took: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + _SECONDS:
        assert not call(**request).get("failures")
        took.append((time.perf_counter() - now) * 1000)
    cuts = quantiles(took, n=100)
    return {"per_second": len(took) / (now - began), "p50_ms": cuts[49], "p99_ms": cuts[98]}


def _compared(sides: dict[str, list[Json]]) -> Json:
    compared: Json = {
        whose: {member: summary([each[member] for each in sides[whose]]) for member in sides[whose][0]}
        for whose in ("homeport", "moto")
    }
    rounds = zip(sides["homeport"], sides["moto"], strict=True)
    compared["homeport_to_moto"] = summary([ours["per_second"] / theirs["per_second"] for ours, theirs in rounds])
    return compared
