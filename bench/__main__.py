"""Measure and write bench/results.json: `make bench`, or `python -m bench [SUITE ...]` for some suites only.

Every suite compares within one run, since machines differ and are noisy: read the ratios, not the seconds.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from bench.api import api
from bench.common import Json, machine
from bench.containers import restart_after_death, start_twenty
from bench.deployments import deployments
from bench.fleet.suite import SIZES, fleet
from bench.footprint import footprint
from bench.journal import journal
from bench.logs import logs
from bench.logs_store import logs_store
from bench.peers.suite import peers
from bench.scheduler import scheduler
from tests.e2e.harness import Installation, installation
from tests.engine.busybox import import_image

RESULTS: Final = Path(__file__).with_name("results.json")
IMAGE: Final = "homeport-bench/busybox:1"
ROUNDS: Final = 5


def _with_agent(measure: Callable[[Installation], Json]) -> Json:
    """Measure with a control plane and a real agent on this machine's Engine."""
    asyncio.run(import_image(IMAGE))
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as directory, installation(Path(directory)) as homeport:
        homeport.start_control_plane()
        homeport.join()
        homeport.start_agent()
        return measure(homeport)


def _api() -> Json:
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as directory, installation(Path(directory)) as homeport:
        homeport.start_control_plane()
        return api(homeport)


def _read_results() -> Json:
    results: Json = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return results


def _keep(name: str, figures: Json) -> None:
    # Read again: another suite may have been measured meanwhile.
    results = {**_read_results(), name: {**figures, "machine": machine()}}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def _fleet(sizes: Sequence[int]) -> Json:
    """Measure fleets of these sizes; each is kept when it is done, and those of other sizes stay."""
    figures: Json = {}
    for hosts in sizes:
        figures = fleet(_read_results().get("fleet", {}), hosts)
        _keep("fleet", figures)
    return figures


def _journal() -> Json:
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as directory:
        return journal(Path(directory))


def _logs_store() -> Json:
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as directory:
        return logs_store(Path(directory), gigabytes=5)


SUITES: Final[dict[str, Callable[[], Json]]] = {
    "start 20 containers": lambda: _with_agent(lambda homeport: start_twenty(homeport, IMAGE, ROUNDS)),
    "restart a dead container": lambda: _with_agent(lambda homeport: restart_after_death(homeport, IMAGE, ROUNDS)),
    "deployments": lambda: _with_agent(lambda homeport: deployments(homeport, IMAGE, ROUNDS)),
    "logs": lambda: _with_agent(lambda homeport: logs(homeport, IMAGE, ROUNDS)),
    "footprint": lambda: _with_agent(lambda homeport: footprint(homeport, IMAGE)),
    "api": _api,
    "journal": _journal,
    "logs store": _logs_store,
    "fleet": lambda: _fleet(SIZES),
    "scheduler": scheduler,
    "peers": peers,
}


@click.command()
@click.argument("suites", nargs=-1, type=click.Choice(list(SUITES)))
@click.option("--hosts", type=click.IntRange(min=10), multiple=True, help="Sizes of fleets to measure, if not all.")
def main(suites: tuple[str, ...], hosts: tuple[int, ...]) -> None:
    """Run the named suites, all by default, and merge their figures into results.json."""
    measures: dict[str, Callable[[], Json]] = {**SUITES, "fleet": lambda: _fleet(hosts or SIZES)}
    for name in suites or measures:
        print(f"== {name}", file=sys.stderr)
        figures = measures[name]()
        print(json.dumps(figures, indent=2))
        _keep(name, figures)


if __name__ == "__main__":
    main()
