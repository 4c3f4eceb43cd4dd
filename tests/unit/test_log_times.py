"""A host's clock may be wrong: its containers' lines come to lie between their task's beginning and now, in order."""

import pytest

from controlplane.fleet.log_times import AHEAD_MS, EventTimes
from homeport.protocol import LogKind

MADE, NOW = 1_000_000, 9_000_000


def times_of(*said: int, last_at: int | None = None, now: int = NOW) -> list[int]:
    times = EventTimes(MADE)
    times.go_on(last_at)
    return [times.time_of(at, LogKind.STDOUT, now) for at in said]


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        pytest.param([MADE, MADE + 5, NOW], [MADE, MADE + 5, NOW], id="right"),
        pytest.param([NOW + 7, NOW + 9], [NOW + 7, NOW + 9], id="a little ahead"),
        pytest.param([0, -(2**70), 17, MADE + 1], [MADE, MADE, MADE, MADE + 1], id="1970, then set"),
        pytest.param([2**70, NOW - 9], [NOW + AHEAD_MS, NOW + AHEAD_MS], id="far ahead, then set"),
        pytest.param([NOW - 10, NOW - 5000, NOW - 8], [NOW - 10, NOW - 10, NOW - 8], id="steps back"),
    ],
)
def test_lines(said: list[int], taken: list[int]) -> None:
    assert times_of(*said) == taken


def test_a_new_link_goes_on_where_the_last_one_was() -> None:
    assert times_of(NOW - 5000, NOW, last_at=NOW - 10) == [NOW - 10, NOW]


def test_an_event_of_somebody_else_in_the_future_takes_no_line_along() -> None:
    assert times_of(NOW, last_at=NOW + 2 * AHEAD_MS) == [NOW + AHEAD_MS]


def test_a_gap_does_not_move_the_lines_that_come_before_its_end() -> None:
    times = EventTimes(MADE)
    assert times.time_of(NOW, LogKind.GAP, NOW) == NOW
    assert times.time_of(NOW - 5000, LogKind.STDERR, NOW) == NOW - 5000
    assert times.time_of(0, LogKind.GAP, NOW) == MADE
    assert times.time_of(2**70, LogKind.GAP, NOW) == NOW + AHEAD_MS
