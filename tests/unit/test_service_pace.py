"""How soon a service is looked at again."""

import pytest
from structlog.testing import capture_logs

from controlplane.services.pace import Pace


def test_looks_at_large_services_wait_for_each_other_and_those_at_small_ones_hardly() -> None:
    """After a restart each host that comes back concerns them all: looks by turns would leave time for nothing else."""
    pace = Pace()
    alone = pace.pause("alone", 5000, 100.0)
    for number in range(4):
        pace.pause(f"large-{number}", 5000, 100.0)
    assert pace.pause("large", 5000, 100.0) == pytest.approx(6 * alone)
    assert pace.pause("small", 2, 100.0) < alone / 100


def test_of_large_services_that_are_always_busy_one_is_looked_at_at_a_time() -> None:
    """Those that aren't looked at just now are owed their time as well."""
    pace = Pace()
    alone = Pace().pause("alone", 5000, 0.0)
    due = dict.fromkeys("abcde", 0.0)
    looks = []
    while (now := min(due.values())) < 20 * alone:
        key = min(due, key=lambda key: due[key])
        looks.append(key)
        due[key] = now + pace.pause(key, 5000, now)
    # The first five at once; from then on each owes its own time.
    assert len(looks) == pytest.approx(20, abs=6)


def test_what_is_owed_is_forgotten_with_time_and_no_service_waits_for_ever() -> None:
    pace = Pace()
    alone = pace.pause("alone", 1000, 0.0)
    for _ in range(100):
        longest = pace.pause("busy", 1000, 0.0)
    assert longest == pytest.approx(20 * alone)
    assert pace.pause("later", 1000, 1000.0) == pytest.approx(alone)


def test_what_many_small_services_owe_does_not_slow_down_a_large_one_for_long() -> None:
    """They wait little themselves, and so owe more than they keep."""
    pace = Pace()
    for look in range(20_000):
        pace.pause(f"small-{look % 100}", 50, now=look / 1000)
    alone = Pace().pause("large", 5000, 0.0)
    assert pace.pause("large", 5000, now=30.0) == pytest.approx(alone)


def test_a_service_that_finds_no_rest_is_slowed_down_and_named() -> None:
    pace = Pace()
    with capture_logs() as logs:
        pauses = [pace.pause("mad", 0, 0.0) for _ in range(501)]
    assert pauses[:500] == [0.0] * 500
    assert pauses[500] == 1.0
    assert [(log["event"], log["service"]) for log in logs] == [("a service finds no rest", "mad")]
