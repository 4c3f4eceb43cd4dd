"""Bugs that the simulator has found, each by the shortest plan that shows it: they stay away."""

from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from controlplane.services import look
from controlplane.services.deciding import presence
from controlplane.services.model import Host
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord
from tests.simulation.checks.assignments import GIVEN_UP
from tests.simulation.page import PAGE, mutations
from tests.simulation.plan import Plan
from tests.simulation.run import simulate

FOUND: Final = Path(__file__).parents[1] / "simulation" / "found"


@pytest.mark.parametrize("plan", sorted(FOUND.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_once_is_mended(plan: Path) -> None:
    outcome = simulate(Plan.from_json(plan.read_bytes()))
    assert outcome.invariant == "", outcome.text


def test_a_plan_of_a_clock_that_is_set_fails_where_silence_is_measured_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds find this one too rarely to be asked for it, so the plan itself shows that it is good for something."""
    silent = look._Verdicts._silent

    def by_the_wall_clock(self: Any, instance: InstanceRecord, presence: Presence | None) -> Host:
        if presence is not None:
            # A millisecond less: the two clocks' fractions differ.
            silence_s = self._clock.now() - presence.last_seen_at - 0.001
            presence = replace(presence, heard_at=self._now - silence_s)
        return silent(self, instance, presence)

    monkeypatch.setattr(look._Verdicts, "_silent", by_the_wall_clock)
    outcome = simulate(Plan.from_json((FOUND / "clock-set-while-away.json").read_bytes()))
    assert "is replaced after" in outcome.text


def test_a_plan_of_what_may_run_once_fails_where_it_stays_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_give_up_isolated", lambda *_: None)
    outcome = simulate(Plan.from_json((FOUND / "begun-on-return.json").read_bytes()))
    assert outcome.invariant == GIVEN_UP


def test_the_page_names_the_deliberate_bugs() -> None:
    assert mutations() in PAGE.read_text()


def test_the_page_names_what_was_found() -> None:
    page = PAGE.read_text()
    assert [plan.stem for plan in FOUND.glob("*.json") if f"`{plan.stem}`" not in page] == []
