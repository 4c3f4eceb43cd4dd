"""A chaos run's report: what counts as a recovery's figure, and its place on the page."""

from typing import Any

import pytest

from tests.chaos.facts import Happened
from tests.chaos.ledger import Ledger, Outcome, Request
from tests.chaos.plan import Fault, Kind, Part
from tests.chaos.recovery import Recovery
from tests.chaos.report import as_document, as_markdown, percentile, rewritten
from tests.chaos.run import Result

MACHINE = {"cores": 2, "kernel": "6.1", "load_average": 1.5}


def _recovery(kind: Kind, *, at: float, lasts: float, takes: float | None) -> Recovery:
    fault = Fault(at_s=at, lasts_s=lasts, kind=kind, part=Part.AGENT, node="host-1")
    happened = Happened(fault, at, at + lasts)
    return Recovery(happened, None if takes is None else happened.ended_at + takes, {})


def _document(*recoveries: Recovery, **members: Any) -> dict[str, Any]:
    ledger = Ledger()
    for outcome in (Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.UNANSWERED):
        ledger.enter(Request(operation="run_task", token="t", outcome=outcome, attempts=2))
    happened = [each.happened for each in recoveries]
    result = Result(plan=[each.fault for each in happened], ledger=ledger, happened=happened, **members)
    result.recoveries = recoveries
    return as_document(result, seed=1, minutes=5, hosts=3, machine=MACHINE)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([7.0], 0.01) == 7.0


def test_a_recovery_counts_if_no_other_fault_was_in_its_way() -> None:
    recovery = _document(
        _recovery(Kind.KILL, at=10, lasts=5, takes=3.0),
        _recovery(Kind.KILL, at=30, lasts=5, takes=5.0),
        _recovery(Kind.FREEZE, at=50, lasts=5, takes=20.0),  # the next began meanwhile
        _recovery(Kind.FREEZE, at=60, lasts=5, takes=None),
    )["recovery"]
    assert recovery["kill agent"] == {"measured": 2, "median_s": 4.0, "p99_s": 5.0, "never": 0}
    assert recovery["freeze agent"] == {"measured": 0, "never": 1}
    assert recovery["all"] == {"measured": 2, "median_s": 4.0, "p99_s": 5.0, "never": 1}


def test_requests_are_counted_by_what_became_of_them() -> None:
    document = _document()
    assert document["requests"] == {"run_task": {"accepted": 2, "unanswered": 1}}
    assert document["attempts"] == 6
    assert "| RunTask | 2 | 0 | 1 |" in as_markdown(document)


def test_losses_are_told_first() -> None:
    assert "**Losses: 1.**" in as_markdown(_document(losses=["a task is gone"])).splitlines()[0]


def test_how_often_that_which_runs_once_ran_is_told() -> None:
    assert "at a time 17 containers ran" in as_markdown(_document(only=17))


def test_figures_replace_those_of_before_and_nothing_else() -> None:
    page = (
        "# Reliability\n\n<!-- chaos: written by make chaos ARGS=--page -->\n\nold\n\n<!-- end of chaos -->\n\nmore\n"
    )
    again = rewritten(rewritten(page, "new\n"), "newer\n")
    assert again == page.replace("old\n", "newer\n")
    with pytest.raises(AssertionError, match="no place for figures"):
        rewritten("# Reliability\n", "new\n")
