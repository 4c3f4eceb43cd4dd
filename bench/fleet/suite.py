"""The sizes of fleets, one after another, each from nothing."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.common import Json
from bench.fleet.client import connected
from bench.fleet.cluster import Cluster
from bench.fleet.growth import growth
from bench.fleet.phases import PHASES, Scale, Trial
from tests.e2e.harness import installation

__all__ = ["SIZES", "fleet", "measure"]

SIZES: Final = (500, 1000, 2500, 5000)


def fleet(before: Json, hosts: int) -> Json:
    """Measure a fleet of so many hosts; those of other sizes that were measured `before` stay in the result."""
    measured = {int(size): figures for size, figures in before.get("sizes", {}).items()}
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as directory:
        measured[hosts] = measure(Path(directory), Scale(hosts))
    return {
        "how": "clients, simulated hosts and control plane share the cores; hosts report RUNNING at once",
        "sizes": {str(size): measured[size] for size in sorted(measured)},
        "growth_per_doubling": growth(measured),
        "budget": {
            "placement": ">= 7,500 tasks/s",
            "idle": "<= 25 % of a core, <= 400 MB, with 5,000 hosts and 50,000 tasks",
        },
    }


def measure(directory: Path, scale: Scale) -> Json:
    """Let one fleet go through all phases, below a directory; everything it started has ended afterwards."""
    with installation(directory) as homeport:
        cluster = Cluster(homeport, scale.hosts)
        cluster.start()
        return asyncio.run(_go_through(cluster, scale))


async def _go_through(cluster: Cluster, scale: Scale) -> Json:
    figures: Json = {}
    async with connected(cluster.homeport) as client:
        trial = Trial(cluster, client, scale)
        for phase in PHASES:
            began = time.monotonic()
            figures[phase.__name__] = await phase(trial)
            print(f"{scale.hosts} hosts, {phase.__name__}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    delays = [each["event_loop"]["longest_delay_ms_up_to"] for each in figures.values() if "event_loop" in each]
    # None: longer than the metric's buckets reach.
    figures["longest_delay_ms_up_to"] = None if None in delays else max(delays)
    return figures
