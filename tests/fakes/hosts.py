"""Simulated hosts in a process of their own: `python -m tests.fakes.hosts URL COUNT ID CODE [ID CODE ...]`,
where each ID and CODE are an activation; the hosts use them in turn.

They speak the real protocol, run nothing, and come back when their session ends. Prints "connected" once all have had
a session; runs until killed.
"""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import aiohttp
import uvloop

from homeport.spec import Resources
from tests.fakes.agent import SimulatedHost

__all__ = ["run_hosts"]

#: So roomy that capacity is never what is measured.
ROOMY: Final = Resources(cpu_units=1 << 30, memory_mib=1 << 30)
_RETRY_S: Final = 0.1
#: Hosts that join at a time; they share the control plane's commits.
_AT_A_TIME: Final = 16


async def run_hosts(url: str, count: int, activations: Sequence[tuple[str, str]]) -> None:
    """Join `count` hosts and hold their sessions until cancelled."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http, asyncio.TaskGroup() as group:

        async def join(numbers: Iterator[int]) -> None:
            for number in numbers:
                host = SimulatedHost(f"host-{number}", resources=ROOMY)
                await host.join(http, url, *activations[number % len(activations)])
                group.create_task(_stay(host, http, url))
                await host.connected.wait()

        numbers = iter(range(count))
        async with asyncio.TaskGroup() as joining:
            for _ in range(_AT_A_TIME):
                joining.create_task(join(numbers))
        sys.stdout.write("connected\n")
        sys.stdout.flush()


async def _stay(host: SimulatedHost, http: aiohttp.ClientSession, url: str) -> None:
    while True:
        try:
            await host.run(http, url)
        except aiohttp.ClientError:
            await asyncio.sleep(_RETRY_S)


if __name__ == "__main__":
    uvloop.run(run_hosts(sys.argv[1], int(sys.argv[2]), list(zip(sys.argv[3::2], sys.argv[4::2], strict=True))))
