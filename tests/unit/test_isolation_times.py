"""When a task that may run at most once stops by itself: always before its replacement may start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.services.isolation import (
    MARGIN_S,
    MIN_LOST_AFTER_S,
    MIN_SILENCE_S,
    at_most_once,
    isolation_kill_s,
    isolation_problem,
    isolation_stop_s,
    stop_duration_s,
    stops_when_isolated,
)
from tests.fakes.agent_host import container, depends, spec_of

TAG = "homeport:stop-when-isolated"


@given(
    lost_after_s=st.floats(MIN_LOST_AFTER_S, 86_400),
    stop_timeouts=st.lists(st.floats(0, 120), max_size=5),
)
def test_silence_is_suffered_for_a_while_and_the_kill_comes_in_time(
    lost_after_s: float, stop_timeouts: list[float]
) -> None:
    stop_s, kill_s = isolation_stop_s(lost_after_s, stop_timeouts), isolation_kill_s(lost_after_s)
    assert MIN_SILENCE_S <= stop_s <= kill_s == lost_after_s - MARGIN_S
    if kill_s - sum(stop_timeouts) >= MIN_SILENCE_S:
        assert stop_s + sum(stop_timeouts) == pytest.approx(kill_s)


def test_the_defaults() -> None:
    spec = at_most_once(spec_of(container("web")), 60.0)
    assert (spec.isolation_stop_s, spec.isolation_kill_s) == (25.0, 55.0)


def test_a_long_stop_timeout_is_cut_short() -> None:
    spec = at_most_once(spec_of(container("web", stop_timeout_s=120)), 60.0)
    assert (spec.isolation_stop_s, spec.isolation_kill_s) == (15.0, 55.0)


def test_containers_that_stop_one_after_another_need_longer() -> None:
    db, app = container("db", stop_timeout_s=10), container("app", stop_timeout_s=5, depends_on=[depends("db")])
    side = container("side", stop_timeout_s=12)
    assert stop_duration_s([db, app, side]) == 15
    assert stop_duration_s([side, db]) == 12
    loop = container("a", stop_timeout_s=3, depends_on=[depends("a")])
    assert stop_duration_s([loop]) == 3


@pytest.mark.parametrize(
    ("service", "definition", "expected"),
    [
        ({TAG: "true"}, {}, True),
        ({}, {TAG: "true"}, True),
        ({TAG: "false"}, {TAG: "true"}, False),
        ({}, {}, False),
        ({TAG: "yes"}, {}, False),
    ],
)
def test_the_tag_is_the_services_or_else_the_definitions(
    service: dict[str, str], definition: dict[str, str], expected: bool
) -> None:
    assert stops_when_isolated(service, definition) is expected


def test_what_leaves_no_time_to_stop_is_refused() -> None:
    tags = {TAG: "true", "homeport:lost-after": "24"}
    assert isolation_problem(tags, {}) == (
        "Tag homeport:stop-when-isolated needs a homeport:lost-after of at least 25 seconds, since a host must notice "
        "that it is isolated and stop the task before it is replaced, but homeport:lost-after was 24."
    )
    assert isolation_problem(tags | {"homeport:lost-after": "25"}, {}) is None
    assert isolation_problem({"homeport:lost-after": "5"}, {}) is None
    assert isolation_problem({"homeport:lost-after": "5"}, {TAG: "true"}) is not None
    assert isolation_problem({TAG: "true"}, {}) is None
