"""Moments that are waited for, by a clock that somebody may set."""

import pytest

from homeport.clock import is_ahead


@pytest.mark.parametrize(
    ("left_s", "ahead"),
    [(-3600.0, False), (0.0, False), (0.1, True), (30.0, True), (30.1, False), (3600.0, False)],
)
def test_a_moment_further_ahead_than_any_wait_is_over(left_s: float, ahead: bool) -> None:
    assert is_ahead(1000.0 + left_s, 1000.0, longest_s=30.0) is ahead
