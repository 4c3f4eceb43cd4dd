"""The pure scheduler: placements per second for each strategy, at 500 and at 5,000 hosts with 10 tasks for each host.

Three ways of asking, all over the same hosts:

    at once     one demand for all tasks: a service scaled up
    batches     in ten batches, with a fresh look at all hosts for each: services that start one after another
    tens        a ranking that is kept, 10 tasks at a time, the chosen hosts looked at again: RunTask

Growth is the time per task at 5,000 hosts over that at 500: 1 if the cost is linear in hosts + tasks. It is CPU time,
since other work on the machine would show as the scheduler's otherwise.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from bench.common import Json
from controlplane.scheduling.model import Candidate, Demand, Strategy
from controlplane.scheduling.placement import RankedHosts, place
from controlplane.state.load import HostLoad
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord
from homeport.ids import InstanceId
from homeport.protocol import HostFacts
from homeport.spec import Resources

__all__ = ["scheduler"]

SMALL: Final = 500
LARGE: Final = 5000
TASKS_PER_HOST: Final = 10
_ZONES: Final = 5
_RACKS: Final = 50
#: A batch is a tenth of all tasks; RunTask places at most so many.
_BATCHES: Final = 10
_AT_A_TIME: Final = 10
_ROUNDS: Final = 3

STRATEGIES: Final[dict[str, tuple[Strategy, ...]]] = {
    "random": (Strategy("random"),),
    "spread host": (Strategy("spread", "host"),),
    "spread zone": (Strategy("spread", "zone"),),
    "spread rack": (Strategy("spread", "rack"),),
    "binpack cpu": (Strategy("binpack", "cpu"),),
    "binpack memory": (Strategy("binpack", "memory"),),
    "spread zone, binpack memory": (Strategy("spread", "zone"), Strategy("binpack", "memory")),
}


def scheduler() -> Json:
    """Measure every strategy in every way. Takes about a minute."""
    results: Json = {"hosts": LARGE, "tasks": LARGE * TASKS_PER_HOST, "growth_from_hosts": SMALL, "strategies": {}}
    for name, chain in STRATEGIES.items():
        figures: Json = {}
        for way, measure in _WAYS.items():
            small, large = _seconds(measure, chain, SMALL), _seconds(measure, chain, LARGE)
            figures[way] = {
                "placements_per_second": round(LARGE * TASKS_PER_HOST / large),
                "growth": round(large / small / (LARGE / SMALL), 2),
            }
        results["strategies"][name] = figures
    return results


def _seconds(measure: Callable[[Sequence[Candidate], Demand], int], chain: Sequence[Strategy], hosts: int) -> float:
    """The best of some rounds, in seconds of CPU time."""
    demand = Demand(resources=Resources(cpu_units=64, memory_mib=128), group="service:bench", strategy=tuple(chain))
    best = float("inf")
    for _ in range(_ROUNDS):
        candidates = _hosts(hosts)
        began = time.process_time()
        placed = measure(candidates, demand)
        best = min(best, time.process_time() - began)
        assert placed == hosts * TASKS_PER_HOST, "there is room for all of them"
    return best


def _at_once(candidates: Sequence[Candidate], demand: Demand) -> int:
    return len(place(candidates, demand, len(candidates) * TASKS_PER_HOST, random.Random(1)).chosen)


def _in_batches(candidates: Sequence[Candidate], demand: Demand) -> int:
    by_id = {candidate.id: candidate for candidate in candidates}
    size, placed = len(candidates) * TASKS_PER_HOST // _BATCHES, 0
    for _ in range(_BATCHES):
        chosen = place(candidates, demand, size, random.Random(1)).chosen
        for instance_id in chosen:
            _load_one_more(by_id[instance_id], demand)
        placed += len(chosen)
    return placed


def _in_tens(candidates: Sequence[Candidate], demand: Demand) -> int:
    by_id = {candidate.id: candidate for candidate in candidates}
    ranked, placed = RankedHosts(demand, random.Random(1)), 0
    for candidate in candidates:
        ranked.put(candidate)
    for _ in range(len(candidates) * TASKS_PER_HOST // _AT_A_TIME):
        chosen = ranked.choose(_AT_A_TIME).chosen
        for instance_id in chosen:
            _load_one_more(by_id[instance_id], demand)
        for instance_id in set(chosen):
            ranked.put(by_id[instance_id])
        placed += len(chosen)
    return placed


_WAYS: Final[dict[str, Callable[[Sequence[Candidate], Demand], int]]] = {
    "at once": _at_once,
    "batches": _in_batches,
    "tens": _in_tens,
}


def _load_one_more(candidate: Candidate, demand: Demand) -> None:
    candidate.load.add(demand.resources, 1)
    candidate.load.add_to_group(demand.group, 1)


def _hosts(count: int) -> list[Candidate]:
    """Hosts of two sizes in zones and racks, each with some tasks of other groups, and room for twice the tasks."""
    source = random.Random(7)
    present = Presence(connected=True, since=1.0, last_seen_at=1.0)
    return [_host(number, source, present) for number in range(count)]


def _host(number: int, source: random.Random, present: Presence) -> Candidate:
    size = source.choice((1, 2))
    name = InstanceId(f"{number:032x}")
    load = HostLoad(cpu_units=source.randrange(512), memory_mib=source.randrange(1024), tasks=3)
    load.groups.update({f"family:{source.randrange(100)}": 3})
    facts = HostFacts(
        hostname=f"host-{number}",
        agent_version="1",
        resources=Resources(cpu_units=2048 * size, memory_mib=4096 * size),
        attributes={"zone": f"z{number % _ZONES}", "rack": f"r{number % _RACKS}"},
    )
    record = InstanceRecord(id=name, cluster="bench", public_key="", registered_at=1.0, facts=facts)
    return Candidate(record, load, present)
