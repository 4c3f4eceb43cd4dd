"""Simulated hosts in a process of their own: `python -m bench.fleet.hosts URL FIRST COUNT ID CODE [ID CODE ...]`.

They join, each with a key of its own, using the activations (ID, CODE) in turn. At SIGUSR1 all connect at once, with
the agent's own uplink, and stay until the process is killed. What becomes of them is told on stdout, one JSON object a
line, whenever it has changed.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

import aiohttp
import msgspec
import uvloop

from agent.identity import Identity
from agent.uplink import Uplink
from bench.fleet.workload import SimulatedWorkload, Tally
from homeport.clock import SystemClock
from homeport.daemon import configure_logging
from homeport.protocol import PATH_REGISTER, HostFacts, Registered, Registration
from homeport.spec import Resources

__all__ = ["main"]

#: So roomy that capacity is never what is measured.
_ROOMY: Final = Resources(cpu_units=1 << 30, memory_mib=1 << 30)
#: Hosts that join at a time; they share the control plane's commits.
_JOIN_AT_A_TIME: Final = 32
#: Seconds between two looks at what has changed.
_TELL_EVERY_S: Final = 0.02


async def main(url: str, numbers: Sequence[int], activations: Sequence[tuple[str, str]]) -> None:
    """Join, wait for the signal, connect, and stay until cancelled."""
    connect = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, connect.set)
    tally = Tally()
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        group.create_task(_tell(tally))
        uplinks = await _join_all(http, url, numbers, activations, tally)
        await connect.wait()
        for uplink in uplinks:
            group.create_task(uplink.run())


async def _join_all(
    http: aiohttp.ClientSession,
    url: str,
    numbers: Sequence[int],
    activations: Sequence[tuple[str, str]],
    tally: Tally,
) -> list[Uplink]:
    uplinks: list[Uplink] = []

    async def join(left: Iterator[int]) -> None:
        for number in left:
            facts = HostFacts(
                hostname=f"host-{number}",
                agent_version="0",
                resources=_ROOMY,
                attributes={"ecs.os-type": "linux", "ecs.cpu-architecture": "x86_64"},
            )
            identity = await _register(http, url, facts, *activations[number % len(activations)])
            workload = SimulatedWorkload(facts, tally)
            uplinks.append(
                Uplink(
                    identity,
                    workload,
                    clock=SystemClock(),
                    random=random.Random(number),
                    on_connected=workload.connected,
                )
            )
            tally.joined += 1

    left = iter(numbers)
    async with asyncio.TaskGroup() as group:
        for _ in range(_JOIN_AT_A_TIME):
            group.create_task(join(left))
    return uplinks


async def _register(http: aiohttp.ClientSession, url: str, facts: HostFacts, activation_id: str, code: str) -> Identity:
    """Join as `agent.identity.join` does, but for the files that this would leave."""
    identity = Identity.new()
    registration = Registration(
        activation_id=activation_id, activation_code=code, public_key=identity.public_key, facts=facts
    )
    async with http.post(url + PATH_REGISTER, data=msgspec.json.encode(registration)) as answer:
        answer.raise_for_status()
        registered = msgspec.json.decode(await answer.read(), type=Registered)
    return msgspec.structs.replace(identity, instance_id=registered.instance_id, servers=(url,))


async def _tell(tally: Tally) -> None:
    told = ""
    while True:
        now = json.dumps(vars(tally))
        if now != told:
            told = now
            sys.stdout.write(json.dumps({"at": time.monotonic(), **vars(tally)}) + "\n")
            sys.stdout.flush()
        await asyncio.sleep(_TELL_EVERY_S)


if __name__ == "__main__":
    configure_logging("error")
    first, count = int(sys.argv[2]), int(sys.argv[3])
    uvloop.run(main(sys.argv[1], range(first, first + count), list(zip(sys.argv[4::2], sys.argv[5::2], strict=True))))
