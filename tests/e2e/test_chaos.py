"""Chaos in short: what `make chaos` does for as long as asked, with one fault of each part."""

from pathlib import Path

import pytest

from tests.chaos.plan import CONTROL_PLANE, Fault, Kind, Part
from tests.chaos.report import as_document, as_markdown
from tests.chaos.run import run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLAN = (
    Fault(at_s=5, lasts_s=2, kind=Kind.KILL, part=Part.AGENT, node="host-1"),
    Fault(at_s=12, lasts_s=3, kind=Kind.KILL, part=Part.CONTROL_PLANE, node=CONTROL_PLANE),
    Fault(at_s=20, lasts_s=3, kind=Kind.KILL, part=Part.ENGINE, node="host-2"),
    Fault(at_s=27, lasts_s=6, kind=Kind.REORDER, part=Part.CABLE, node=CONTROL_PLANE, amount=0.1),
    Fault(at_s=36, lasts_s=4, kind=Kind.FILL, part=Part.CONTROL_PLANE, node=CONTROL_PLANE),
    Fault(at_s=42, lasts_s=5, kind=Kind.CUT, part=Part.CABLE, node="host-1"),
)


def test_a_minute_of_faults_loses_nothing(tmp_path: Path, busybox: str) -> None:
    result = run(tmp_path, PLAN, minutes=1, hosts=2, image=busybox, seed=1, pace=1.0)
    assert result.losses == []
    assert len(result.happened) == len(PLAN)
    assert all(recovery.well_at is not None for recovery in result.recoveries)
    document = as_document(result, seed=1, minutes=1, hosts=2, machine={"cores": 2, "kernel": "6", "load_average": 1.0})
    assert document["requests"]["run_task"]["accepted"] > len(PLAN)
    assert "**Losses: 0.**" in as_markdown(document)
