"""How figures grow with the fleet, and the table that the README shows. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from bench.common import Json

__all__ = ["ROWS", "Row", "growth", "per_doubling", "table"]


class Row(NamedTuple):
    """A figure of the table: what it is called, where it is found, and how it is written."""

    title: str
    path: tuple[str, ...]
    unit: str
    decimals: int = 1


ROWS: Final = (
    Row("all join, a few at a time", ("join", "seconds"), " s"),
    Row("all connect at once, until heard out", ("storm", "seconds"), " s"),
    Row("CPU of one handshake", ("storm", "cpu_ms_per_host", "control_plane"), " ms", 2),
    Row("placed by RunTask, until RUNNING is durable", ("run_tasks", "per_second"), "/s", 0),
    Row("CPU of one such task", ("run_tasks", "cpu_ms_per_task", "control_plane"), " ms", 2),
    Row("RunTask meanwhile, p99", ("run_tasks", "api", "RunTask", "p99_ms"), " ms", 0),
    Row("one service, a task for each host, until all run", ("service", "until_running_s"), " s", 2),
    Row("five more, until all run", ("services", "per_second"), "/s", 0),
    Row("CPU of one such task", ("services", "cpu_ms_per_task", "control_plane"), " ms", 2),
    Row("DescribeTasks meanwhile, p99", ("services", "api", "DescribeTasks", "p99_ms"), " ms", 0),
    Row("at rest with 10 tasks per host, CPU of a core", ("idle", "cpu_percent_of_a_core"), " %"),
    Row("resident memory", ("idle", "rss_mb"), " MB", 0),
    Row("a deployment of that service, 5 s of it to see that tasks stay up", ("deployment", "seconds"), " s"),
    Row("CPU of one task replaced", ("deployment", "cpu_ms_per_task", "control_plane"), " ms", 2),
    Row("after kill -9: until ready again", ("restart", "until_ready_s"), " s"),
    Row("then until all hosts are heard out", ("restart", "seconds"), " s"),
    Row("a tenth of the hosts is lost: until noticed", ("loss", "until_noticed_s"), " s", 2),
    Row("from the first of their services' tasks replaced to the last", ("loss", "replacing_s"), " s", 2),
    Row("longest standstill of the event loop in all of this, up to", ("longest_delay_ms_up_to",), " ms", 0),
)


def growth(measured: Mapping[int, Json]) -> Json:
    """Return, by row, by what a figure is multiplied when the fleet doubles; {} for fewer than two sizes."""
    found = {}
    for row in ROWS:
        points = {hosts: value for hosts, figures in measured.items() if (value := _find(figures, row.path))}
        factor = per_doubling(points)
        if factor is not None:
            found[".".join(row.path)] = round(factor, 2)
    return found


def per_doubling(points: Mapping[int, float]) -> float | None:
    """Fit value = c * size ** k, and return 2 ** k: 2 is linear, 1 doesn't grow. None if there is nothing to fit.

    Sizes and values must be above zero.
    """
    if len(points) < 2:
        return None
    logs = [(math.log2(size), math.log2(value)) for size, value in points.items()]
    middle_x, middle_y = (sum(each) / len(logs) for each in zip(*logs, strict=True))
    slope = sum((x - middle_x) * (y - middle_y) for x, y in logs) / sum((x - middle_x) ** 2 for x, _ in logs)
    return float(2**slope)


def table(figures: Json) -> str:
    """Render the suite's figures as the README's table."""
    sizes: Sequence[str] = list(figures["sizes"])
    header = ["hosts", *(f"{int(size):,}" for size in sizes), "per doubling"]
    lines = [header, ["---"] * len(header)]
    for row in ROWS:
        values = [_find(figures["sizes"][size], row.path) for size in sizes]
        factor = figures["growth_per_doubling"].get(".".join(row.path))
        lines.append([row.title, *(_text(value, row) for value in values), "" if factor is None else f"× {factor:.2f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n" + _caution(figures.get("machine", {}))


def _caution(machine: Json) -> str:
    """Say so if the machine had other things to do: a fleet's own processes keep its load below twice its cores."""
    load, cores = machine.get("load_average", 0), machine.get("cores", 1)
    if load <= 2 * cores:
        return ""
    return f"\nThe machine was busy with other things (load average {load:.0f}): CPU times count, seconds don't.\n"


def _text(value: float | None, row: Row) -> str:
    return "" if value is None else f"{value:,.{row.decimals}f}{row.unit}"


def _find(figures: Json, path: Sequence[str]) -> float | None:
    found: object = figures
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return float(found) if isinstance(found, (int, float)) else None
