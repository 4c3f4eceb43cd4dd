"""What keeping 20 containers costs while nothing happens: CPU and memory of the Engine and of what stands beside it.

All sides are looked at over the same seconds. Swarm's manager and worker are inside dockerd, so what they cost is the
difference to the Engine without a swarm. The same difference is taken for Homeport: its agent keeps dockerd busy, too.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final

import psutil

from bench.common import Json, summary
from tests.e2e.hosts import EngineHost

__all__ = ["engine_processes", "idle"]

_SECONDS: Final = 6.0
#: Go's collectors and Python's tidy up at first.
_CALM_DOWN_S: Final = 3.0


def engine_processes(host: EngineHost) -> list[int]:
    """Return the ids of dockerd and containerd; the shims beside each container are the same for everyone."""
    return [
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] in {"dockerd", "containerd"}
        and str(host.engine.directory) in " ".join(process.info["cmdline"])
    ]


def idle(processes: Mapping[str, Sequence[int]], windows: int) -> Json:
    """Look at each side's processes for some windows; return percent of a core, and MB, in all and beyond `engine`."""
    sides = {whose: [psutil.Process(pid) for pid in pids] for whose, pids in processes.items()}
    percent: dict[str, list[float]] = {whose: [] for whose in sides}
    time.sleep(_CALM_DOWN_S)
    for _ in range(windows):
        for whose, used in _percent_of_a_core(sides).items():
            percent[whose].append(used)
    megabytes = {whose: sum(each.memory_info().rss for each in side) / 1e6 for whose, side in sides.items()}
    figures: Json = {
        whose: {"cpu_percent_of_a_core": summary(percent[whose]), "rss_mb": round(megabytes[whose], 1)}
        for whose in sides
    }
    for whose in sides.keys() - {"engine"}:
        beyond = [a - b for a, b in zip(percent[whose], percent["engine"], strict=True)]
        figures[whose]["cpu_beyond_engine"] = summary(beyond)
        figures[whose]["rss_mb_beyond_engine"] = round(megabytes[whose] - megabytes["engine"], 1)
    return figures


def _percent_of_a_core(sides: Mapping[str, Sequence[psutil.Process]]) -> dict[str, float]:
    before = {whose: _cpu_s(side) for whose, side in sides.items()}
    began = time.monotonic()
    time.sleep(_SECONDS)  # a measurement needs its time
    took = time.monotonic() - began
    return {whose: (_cpu_s(side) - before[whose]) / took * 100 for whose, side in sides.items()}


def _cpu_s(side: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in side)
