"""Bugs that the simulator has found, each by the shortest plan that shows it: they stay away."""

from pathlib import Path
from typing import Final

import pytest

from tests.simulation.page import PAGE, mutations
from tests.simulation.plan import Plan
from tests.simulation.run import simulate

FOUND: Final = Path(__file__).parents[1] / "simulation" / "found"


@pytest.mark.parametrize("plan", sorted(FOUND.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_once_is_mended(plan: Path) -> None:
    outcome = simulate(Plan.from_json(plan.read_bytes()))
    assert outcome.invariant == "", outcome.text


def test_the_page_names_the_deliberate_bugs() -> None:
    assert mutations() in PAGE.read_text()


def test_the_page_names_what_was_found() -> None:
    page = PAGE.read_text()
    assert [plan.stem for plan in FOUND.glob("*.json") if f"`{plan.stem}`" not in page] == []
