"""The fleet's bench, with a small fleet: it goes through all phases, so that it can't rot."""

from pathlib import Path

from bench.fleet.growth import ROWS, table
from bench.fleet.phases import PHASES, Scale
from bench.fleet.suite import measure

SMALL = Scale(20, settle_s=0.0, idle_s=0.2, profiled_tasks=50, min_healthy_s=0)


def test_a_small_fleet_goes_through_all_phases(tmp_path: Path) -> None:
    figures = measure(tmp_path, SMALL)
    assert set(figures) == {*(phase.__name__ for phase in PHASES), "longest_delay_ms_up_to"}
    assert figures["idle"]["tasks"] == 200
    assert figures["loss"]["hosts"] == 2
    assert figures["loss"]["tasks"] == 12
    rendered = table({"sizes": {"20": figures}, "growth_per_doubling": {}})
    assert len(rendered.splitlines()) == len(ROWS) + 2
    assert "|  |  |" not in rendered  # every figure was found
