"""All of it in one run, in rounds: in each round every side has its turn, so that a machine's moods meet all alike."""

import asyncio
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.common import Json, summary
from bench.peers.api import api_beside_moto
from bench.peers.idle import engine_processes, idle
from bench.peers.services import COUNT, Figures, bare_life, best_concurrency, homeport_life, swarm_life
from bench.peers.sides import Bare, Homeport, Side, Swarm
from tests.e2e.harness import Installation, installation
from tests.e2e.hosts import EngineHost, lan
from tests.engine.busybox import import_image

__all__ = ["compared", "peers"]

_IMAGE: Final = "homeport-bench/busybox:1"
ROUNDS: Final = 5


def peers(rounds: int = ROUNDS) -> Json:
    """Measure everything. Takes about ten minutes."""
    with _sides() as (bare, homeport, swarm):
        engine = bare.host.docker("version", "--format", "{{.Server.Version}}").strip()
        result: Json = {"versions": {"Docker Engine": engine, **{name: version(name) for name in ("botocore", "moto")}}}
        result["idle"] = _idle(bare, homeport, swarm, rounds)
        result["services"] = _services(bare, homeport, swarm, rounds)
    result["api"] = api_beside_moto(rounds, _tell)
    return result


@contextmanager
def _sides() -> Iterator[tuple[Bare, Homeport, Swarm]]:
    """Yield the three, each with an Engine that has the image, and nothing running."""
    # Swarm asks a registry for an image that it has unless its daemon is told not to. The others don't mind.
    os.environ["DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"] = "1"
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="homeport-peers-"))
        network = stack.enter_context(lan())
        hosts = [network.add_host() for _ in range(3)]
        for host in hosts:
            host.start_engine(live_restore=False)  # which Swarm can't have
            asyncio.run(import_image(_IMAGE, host.engine.docker_host))
        runner = stack.enter_context(asyncio.Runner())
        made = stack.enter_context(installation(Path(directory)))
        _start_homeport(made, hosts[1])
        sides = Bare(hosts[0], _IMAGE, runner), Homeport(hosts[1], _IMAGE, made), Swarm(hosts[2], _IMAGE)
        for side in sides:
            stack.callback(side.close)
        yield sides


def _start_homeport(made: Installation, host: EngineHost) -> None:
    made.start_control_plane("--heartbeat", "5")  # the default; tests have a quicker one
    made.join()
    made.start_agent(docker_host=host.engine.docker_host)


def _idle(bare: Bare, homeport: Homeport, swarm: Swarm, rounds: int) -> Json:
    """With as many containers on each side, and before anything else: so that nobody's past counts."""
    _tell(f"at rest, {COUNT} containers each")
    sides: dict[str, Side] = {"engine": bare, "homeport": homeport, "swarm": swarm}
    for side in sides.values():
        side.create(COUNT)
        side.running.until(lambda ids: len(ids) == COUNT)
    processes = {whose: engine_processes(side.host) for whose, side in sides.items()}
    processes["homeport"] += homeport.processes()
    figures = idle(processes, rounds)
    for side in sides.values():
        side.remove()
        side.running.until(lambda ids: not ids)
    return {"containers": COUNT, **figures}


def _services(bare: Bare, homeport: Homeport, swarm: Swarm, rounds: int) -> Json:
    _tell("the Engine's best concurrency")
    tried = best_concurrency(bare)
    figures: Figures = {}
    for number in range(rounds):
        _tell(f"services, round {number + 1} of {rounds}")

        def note(what: str, whose: str, seconds: float, number: int = number) -> None:
            figures.setdefault(what, {}).setdefault(whose, {})[number] = seconds
            _tell(f"  {what:18} {whose:18} {seconds:7.3f} s")

        lives = deque(
            (
                partial(bare_life, bare, note),
                partial(homeport_life, homeport, note),
                partial(swarm_life, swarm, note, slowly=number % 2 == 0),
            )
        )
        lives.rotate(number)  # nobody is always the first, or always comes after the same
        for live in lives:
            live()
    return {
        "engine_start_20_s_by_requests_at_once": {str(many): round(took, 3) for many, took in tried.items()},
        **{what: compared(sides) for what, sides in figures.items()},
    }


def compared(sides: dict[str, dict[int, float]]) -> Json:
    """Return each side's seconds and, round by round, what multiple of the Engine's own they are."""
    compared: Json = {f"{whose}_s": summary(list(seconds.values())) for whose, seconds in sides.items()}
    floor = sides.get("engine", {})
    for whose, seconds in sides.items():
        if floor and whose != "engine":
            compared[f"{whose}_to_engine"] = summary([took / floor[number] for number, took in seconds.items()])
    return compared


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}   {line}", file=sys.stderr, flush=True)
