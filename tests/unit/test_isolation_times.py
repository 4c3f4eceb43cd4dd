"""When a task that may run at most once stops by itself: always before its replacement may start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.fleet.liveness import HostVerdict
from controlplane.services.isolation import (
    MARGIN_S,
    MIN_LOST_AFTER_S,
    MIN_SILENCE_S,
    at_most_once,
    isolation_kill_s,
    isolation_problem,
    isolation_stop_s,
    least_lost_after_s,
    stop_duration_s,
    stops_when_isolated,
)
from controlplane.services.look import look_at
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord
from controlplane.state.service_records import ServiceRecord
from homeport.ids import InstanceId
from homeport.protocol import HostFacts
from tests.fakes.agent_host import container, depends, spec_of
from tests.fakes.clock import ManualClock
from tests.fakes.fleet import a_context, a_task

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


def test_a_shortened_lost_after_waits_for_tasks_that_were_made_before() -> None:
    made = at_most_once(spec_of(), 60.0)
    assert least_lost_after_s(30.0, [spec_of(), made]) == 60.0
    assert least_lost_after_s(90.0, [made]) == 90.0
    assert least_lost_after_s(5.0, [spec_of()]) == 5.0


async def test_a_service_that_shortens_its_lost_after_does_not_replace_what_may_still_run() -> None:
    clock = ManualClock()
    context = a_context(clock=clock)
    service = ServiceRecord(
        id="s", cluster="default", name="web", created_at=1.0, tags={TAG: "true", "homeport:lost-after": "30"}
    )
    task = replace(a_task("t1", "h1"), group=service.group)
    single = replace(task, spec=at_most_once(task.spec, 60.0))
    host = InstanceRecord(
        id=InstanceId("h1"),
        cluster="default",
        public_key="",
        registered_at=1.0,
        facts=HostFacts(hostname="h1", agent_version=""),
    )

    def verdict() -> HostVerdict:
        return look_at(context, service, started_at=0.0, blocked=None).hosts[host.id].verdict

    with context.state.transaction() as transaction:
        for record in (service, single, host):
            transaction.put(record)
    context.state.presence.put(
        host.id, Presence(connected=False, since=1.0, last_seen_at=clock.now() - 40.0, heard_at=clock.now() - 40.0)
    )
    assert verdict() is HostVerdict.UNKNOWN
    clock.time += 20.0
    assert verdict() is HostVerdict.LOST
    clock.time -= 20.0
    clock.set_by = 3600.0
    assert verdict() is HostVerdict.UNKNOWN, "somebody who sets the clock makes no host silent for longer"
    with context.state.transaction() as transaction:
        transaction.put(replace(task, version=2))
    assert verdict() is HostVerdict.LOST, "others are replaced when the tag says so"
