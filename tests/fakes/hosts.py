"""Simulated hosts in a process of their own: `python -m tests.fakes.hosts URL ACTIVATION-ID CODE COUNT`.

They speak the real protocol, run nothing, and come back when their session ends. Prints "connected" once all have had
a session; runs until killed.
"""

import asyncio
import sys
from typing import Final

import aiohttp
import uvloop

from homeport.spec import Resources
from tests.fakes.agent import SimulatedHost

__all__ = ["run_hosts"]

#: So roomy that capacity is never what is measured.
ROOMY: Final = Resources(cpu_units=1 << 30, memory_mib=1 << 30)
_RETRY_S: Final = 0.1


async def run_hosts(url: str, activation_id: str, code: str, count: int) -> None:
    """Join `count` hosts and hold their sessions until cancelled."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http, asyncio.TaskGroup() as group:
        for number in range(count):
            host = SimulatedHost(f"host-{number}", resources=ROOMY)
            await host.join(http, url, activation_id, code)
            group.create_task(_stay(host, http, url))
            await host.connected.wait()
        sys.stdout.write("connected\n")
        sys.stdout.flush()


async def _stay(host: SimulatedHost, http: aiohttp.ClientSession, url: str) -> None:
    while True:
        try:
            await host.run(http, url)
        except aiohttp.ClientError:
            await asyncio.sleep(_RETRY_S)


if __name__ == "__main__":
    uvloop.run(run_hosts(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
