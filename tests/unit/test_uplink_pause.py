"""How long an uplink waits before it connects again."""

import random

import pytest

from agent.uplink import BACKOFF_CAP_S, RETRY_AFTER_CAP_S, pause_s
from homeport.protocol import Goodbye


def pauses(attempts: int, goodbye: Goodbye = Goodbye(reason="")) -> list[float]:  # noqa: B008 - it is frozen
    source = random.Random(attempts)
    return [pause_s(goodbye, attempts, BACKOFF_CAP_S, source) for _ in range(2000)]


@pytest.mark.parametrize(("attempts", "longest"), [(0, 0.1), (1, 0.2), (3, 0.8), (6, 6.4), (7, 8.0), (100_000, 8.0)])
def test_pauses_are_uniform_up_to_a_doubling_bound(attempts: int, longest: float) -> None:
    found = pauses(attempts)
    assert 0.0 <= min(found) < longest * 0.01
    assert longest * 0.99 < max(found) <= longest
    assert sum(found) / len(found) == pytest.approx(longest / 2, rel=0.05)


def test_the_control_plane_may_name_a_time_within_reason() -> None:
    named = pauses(0, Goodbye(reason="", retry_after_s=60.0))
    assert 60.0 <= min(named) < 61.0
    assert 74.0 < max(named) <= 75.0
    assert max(pauses(0, Goodbye(reason="", retry_after_s=1e9))) <= RETRY_AFTER_CAP_S * 1.25
