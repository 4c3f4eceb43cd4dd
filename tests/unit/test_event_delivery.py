"""Bringing events to targets: in order, at least once, whatever the endpoint does and whenever the process dies."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.events.delivery import Deliveries
from controlplane.events.feed import JournalFeed
from controlplane.events.notes import CustomFacts
from controlplane.events.outgoing import signature
from controlplane.events.retrying import Backoff
from controlplane.events.sending import Sender
from controlplane.events.targets import begin, forget
from controlplane.logs.api import LogGroup
from controlplane.state.delivery_records import ApiDestinationRecord, ConnectionRecord, DeliveryRecord
from controlplane.state.records import ClusterRecord
from controlplane.state.schedule_records import RuleRecord, RunOutcome, Timetable
from controlplane.state.state import load_state
from tests.fakes.clock import MovableClock
from tests.fakes.endpoint import Endpoint, serve_endpoint
from tests.fakes.fleet import eventually
from tests.fakes.journal import MemoryJournal
from tests.fakes.records import ARNS, a_context, a_definition, an_instance, connect, put

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
QUICK = Backoff(base_s=0.001, cap_s=0.002)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with serve_endpoint() as served:
        yield served


def a_destination(url: str, name: str = "hook", **members: Any) -> tuple[ConnectionRecord, ApiDestinationRecord]:
    times: dict[str, Any] = {"created_at": 1.0, "modified_at": 1.0}
    connection = ConnectionRecord(
        name=name, id="c", authorization="API_KEY", user="webhook-signature", secret=SECRET, authorized_at=1.0, **times
    )
    destination = ApiDestinationRecord(
        name=name, id="d", connection=name, connection_id="c", endpoint=url, method="POST", **times
    )
    return connection, replace(destination, **{"rate": 1000, **members})


def http_target(name: str = "hook", **members: Any) -> dict[str, Any]:
    return {"Id": name, "Arn": ARNS.api_destination(name, "d"), **members}


def a_rule(*targets: dict[str, Any], name: str = "rule", **members: Any) -> RuleRecord:
    given = {"pattern": '{"source": ["test"]}', "timetable": Timetable(expression=""), **members}
    return RuleRecord(name=name, created_at=1.0, targets=targets, **given)


def put_rule(context: Context, rule: RuleRecord) -> None:
    with context.state.transaction() as transaction:
        transaction.put(rule)
        begin(context, transaction, rule, [target["Id"] for target in rule.targets])


def emit(context: Context, *numbers: int, source: str = "test") -> None:
    for number in numbers:
        with context.state.transaction() as transaction:
            transaction.emit(CustomFacts(source=source, detail_type="Test", detail={"n": number}))


def record_of(context: Context, key: str = "rule/hook") -> DeliveryRecord:
    record = context.state.event_deliveries.get(key)
    assert record is not None
    return record


def a_world() -> Context:
    clock = MovableClock()
    context = a_context(clock)
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    journal.clock = clock
    return context


def move(context: Context, seconds: float) -> None:
    clock = context.clock
    assert isinstance(clock, MovableClock)
    clock.move(seconds)


@asynccontextmanager
async def delivering(context: Context, *, timeout_s: float = 15.0, backoff: Backoff = QUICK) -> AsyncIterator[None]:
    feed = JournalFeed(context.state.journal, context.arns)
    async with Sender(context.clock, timeout_s=timeout_s) as sender, asyncio.TaskGroup() as group:
        life = group.create_task(Deliveries(context, feed, sender, backoff=backoff).run())
        yield
        life.cancel()


async def killed(context: Context) -> Context:
    """What a new process finds after this one was killed: only what was durable."""
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    state = await load_state(MemoryJournal.restarted(journal))
    return Context(
        state=state,
        clock=context.clock,
        random=random.Random(2),
        arns=context.arns,
        endpoints=context.endpoints,
        logs=context.logs,
    )


async def test_matched_events_arrive_in_order_and_signed(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url + "/in?a=1"))
    emit(context, 0)  # before the target was put
    put_rule(context, a_rule(http_target()))
    async with delivering(context):
        emit(context, 1, 2)
        emit(context, 99, source="other")
        emit(context, 3)
        await eventually(lambda: endpoint.accepted == [1, 2, 3])
        await eventually(lambda: record_of(context).delivered == 3)
    request = endpoint.requests[0]
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert (request.method, request.path_qs) == ("POST", "/in?a=1")
    assert headers["content-type"] == "application/json; charset=utf-8"
    expected = signature(SECRET, headers["webhook-id"], int(headers["webhook-timestamp"]), request.body)
    assert headers["webhook-signature"] == expected
    assert headers["webhook-id"].encode() in request.body
    assert len({each.headers["webhook-id"] for each in endpoint.requests}) == 3
    assert record_of(context).last_delivered_at is not None


async def test_what_fails_is_repeated_and_what_follows_waits(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    endpoint.then(500, 302, 404, 429, 503)
    async with delivering(context):
        emit(context, 1, 2)
        await eventually(lambda: endpoint.accepted == [1, 2])
        await eventually(lambda: record_of(context).delivered == 2)
    assert [request.number for request in endpoint.requests] == [1] * 6 + [2]
    assert len({request.headers["webhook-id"] for request in endpoint.requests[:6]}) == 1
    record = record_of(context)
    assert (record.delivered, record.dropped, record.attempts, record.problem) == (2, 0, 0, "")


async def test_a_failure_is_shown_with_its_reason_until_it_is_over(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    endpoint.then(301, Location="http://elsewhere.test/")
    async with delivering(context, backoff=Backoff(base_s=1e6, cap_s=1e6)):
        emit(context, 1)
        await eventually(lambda: record_of(context).attempts == 1)
        record = record_of(context)
        assert record.problem == "HTTP 301 Moved Permanently to http://elsewhere.test/ (redirects aren't followed)"
        assert record.retry_at is not None
        assert record.event_at is not None
        # A change of the destination is a reason to try again at once.
        put(context, *a_destination(endpoint.url, description="mended"))
        await eventually(lambda: endpoint.accepted == [1])
        await eventually(lambda: record_of(context).problem == "")
        assert record_of(context).tried_at is None


async def test_retry_after_is_honoured(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    endpoint.then(429, Retry_After="3600")
    async with delivering(context):
        emit(context, 1)
        await eventually(lambda: record_of(context).attempts == 1)
        retry_at = record_of(context).retry_at
        assert retry_at is not None
        assert retry_at - context.clock.now() == pytest.approx(3600, abs=30)


async def test_a_clock_that_is_set_back_puts_no_attempt_off(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    endpoint.then(500)
    emit(context, 1)
    async with delivering(context, backoff=Backoff(base_s=1e6, cap_s=1e6)):
        await eventually(lambda: record_of(context).attempts == 1)
    again = await killed(context)
    move(again, -3600)
    async with delivering(again):
        await eventually(lambda: endpoint.accepted == [1])


@pytest.mark.parametrize(
    ("policy", "statuses", "reason"),
    [
        (
            {"MaximumRetryAttempts": 2},
            (500,) * 3,
            "HTTP 500 Internal Server Error: the endpoint says no; given up after 3",
        ),
        ({"MaximumRetryAttempts": 0}, (500,), "given up after 1 attempts"),
        ({}, (400,), "HTTP 400 Bad Request: the endpoint says no"),
    ],
)
async def test_what_can_not_be_delivered_is_given_up_with_its_reason(
    endpoint: Endpoint, policy: dict[str, int], statuses: tuple[int, ...], reason: str
) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target(RetryPolicy=policy)))
    endpoint.then(*statuses)
    async with delivering(context):
        emit(context, 1, 2)
        await eventually(lambda: endpoint.accepted == [2])
        await eventually(lambda: record_of(context).delivered == 1)
    record = record_of(context)
    assert reason in record.drop_reason
    assert (record.dropped, record.delivered, record.attempts) == (1, 1, 0)


async def test_an_event_that_is_too_old_is_given_up(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target(RetryPolicy={"MaximumEventAgeInSeconds": 60})))
    emit(context, 1)
    move(context, 61)
    emit(context, 2)
    async with delivering(context):
        await eventually(lambda: endpoint.accepted == [2])
    assert "given up after 61 seconds" in record_of(context).drop_reason


async def test_gone_disables_the_target_until_it_is_put_anew(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    rule = a_rule(http_target())
    put_rule(context, rule)
    endpoint.then(410)
    async with delivering(context):
        emit(context, 1)
        await eventually(lambda: record_of(context).disabled)
        assert record_of(context).disabled.startswith("HTTP 410 Gone")
        emit(context, 2)
        put_rule(context, rule)
        emit(context, 3)
        await eventually(lambda: endpoint.accepted == [3])
    assert len(endpoint.requests) == 2


async def test_gone_is_no_reason_to_give_the_event_up(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target(RetryPolicy={"MaximumRetryAttempts": 0})))
    endpoint.then(410)
    async with delivering(context):
        emit(context, 1)
        await eventually(lambda: record_of(context).disabled)
    assert record_of(context).dropped == 0


async def test_a_target_that_is_removed_and_put_again_begins_anew(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    rule = a_rule(http_target())
    put_rule(context, rule)
    endpoint.then(500)
    async with delivering(context, backoff=Backoff(base_s=1e6, cap_s=1e6)):
        emit(context, 1, 2)
        await eventually(lambda: record_of(context).attempts == 1)
        with context.state.transaction() as transaction:
            forget(context.state, transaction, "rule", ["hook"])
        put_rule(context, rule)
        emit(context, 3)
        await eventually(lambda: endpoint.accepted == [3])


async def test_a_destination_that_is_wrong_keeps_its_events(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url + "/*"))
    put_rule(context, a_rule(http_target()))
    async with delivering(context, backoff=Backoff(base_s=1e6, cap_s=1e6)):
        emit(context, 1)
        await eventually(lambda: "PathParameterValues" in record_of(context).problem)
        connection, destination = a_destination(endpoint.url)
        with context.state.transaction() as transaction:
            transaction.delete(connection)
        put(context, destination)
        await eventually(lambda: record_of(context).problem == "there is no connection hook any more")
        put(context, connection)
        await eventually(lambda: endpoint.accepted == [1])


async def test_a_dead_and_a_hanging_endpoint_hold_up_no_other(endpoint: Endpoint) -> None:
    context = a_world()
    async with serve_endpoint() as hanging:
        hanging.open.clear()
        put(context, *a_destination(endpoint.url), *a_destination(hanging.url, "hanging"))
        put(context, *a_destination("http://127.0.0.1:1/", "dead"))
        put_rule(context, a_rule(http_target("hanging"), http_target("dead"), http_target()))
        async with delivering(context, timeout_s=1.0):
            emit(context, *range(50))
            await eventually(lambda: endpoint.accepted == list(range(50)))
            await eventually(lambda: record_of(context, "rule/dead").attempts > 1)
            await eventually(lambda: record_of(context, "rule/hanging").attempts > 0)
        assert "Connect call failed" in record_of(context, "rule/dead").problem
        assert record_of(context, "rule/hanging").problem == "no answer from 127.0.0.1 within 1 seconds"


@pytest.mark.parametrize("kill_after", [1, 7, 23, 40])
async def test_whenever_it_is_killed_nothing_is_lost_and_a_few_are_repeated(
    endpoint: Endpoint, kill_after: int
) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    emit(context, *range(50))
    async with delivering(context):
        await eventually(lambda: len(endpoint.requests) >= kill_after)
        # From here on nothing is durable any more: what is left when the process is gone.
        journal.hold()
        again = await killed(context)
    before = len(endpoint.accepted)
    async with delivering(again):
        emit(again, 50)
        await eventually(lambda: endpoint.accepted[-1] == 50)
    second = endpoint.accepted[before:]
    assert second == list(range(second[0], 51))
    assert second[0] <= before  # nothing is lost
    assert before - second[0] <= 11  # ten at most, and the one under way


@pytest.mark.parametrize("seed", range(4))
async def test_through_failures_and_many_kills_every_event_arrives_in_order(endpoint: Endpoint, seed: int) -> None:
    chance = random.Random(seed)
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    sent = 0
    for _ in range(5):
        count = chance.randrange(5, 30)
        endpoint.then(*(chance.choice([200, 200, 200, 500, 302, 429]) for _ in range(count)))
        arrived = len(endpoint.requests) + chance.randrange(count)
        async with delivering(context):
            emit(context, *range(sent, sent + count))
            sent += count
            await eventually(lambda: len(endpoint.requests) >= arrived)  # noqa: B023 - it is over by the next round
            journal = context.state.journal
            assert isinstance(journal, MemoryJournal)
            journal.hold()
            context = await killed(context)
    async with delivering(context):
        await eventually(lambda: endpoint.accepted and endpoint.accepted[-1] == sent - 1)
    assert list(dict.fromkeys(endpoint.accepted)) == list(range(sent))
    assert record_of(context).dropped == 0


async def test_told_to_stop_it_knows_its_place_to_the_event(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    async with delivering(context):
        emit(context, 1, 2, 3)
        await eventually(lambda: endpoint.accepted == [1, 2, 3])
        await eventually(lambda: record_of(context).cursor == context.state.journal.last_event)
    again = await killed(context)
    async with delivering(again):
        emit(again, 4)
        await eventually(lambda: endpoint.accepted == [1, 2, 3, 4])


async def test_attempts_go_on_counting_after_a_restart(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target(RetryPolicy={"MaximumRetryAttempts": 1})))
    endpoint.then(500, 500)
    emit(context, 1)
    async with delivering(context, backoff=Backoff(base_s=1e6, cap_s=1e6)):
        await eventually(lambda: record_of(context).attempts == 1)
    again = await killed(context)
    move(again, 80_000)
    put(again, replace(record_of(again), retry_at=0.0))
    async with delivering(again):
        await eventually(lambda: record_of(again).dropped == 1)
    assert len(endpoint.requests) == 2


async def test_events_that_retention_took_are_told_of(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    emit(context, 1, 2, 3)
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    journal.forget_events(2)
    async with delivering(context):
        await eventually(lambda: endpoint.accepted == [3])
    assert record_of(context).drop_reason.startswith("2 events had left the stream")
    journal.forget_events(journal.last_event)
    emptied = await killed(context)
    put(emptied, replace(record_of(emptied), cursor=0))
    async with delivering(emptied):
        await eventually(lambda: record_of(emptied).cursor == emptied.state.journal.last_event)


async def test_a_rule_that_is_disabled_or_has_no_target_any_more_gets_nothing(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    rule = a_rule(http_target())
    put_rule(context, rule)
    async with delivering(context):
        emit(context, 1)
        await eventually(lambda: endpoint.accepted == [1])
        put(context, replace(rule, state="DISABLED"))
        emit(context, 2)
        with context.state.transaction() as transaction:
            transaction.put(rule)
            begin(context, transaction, rule, ["hook"], anew=True)
        emit(context, 3)
        await eventually(lambda: endpoint.accepted == [1, 3])
        put(context, replace(rule, targets=()))
        emit(context, 4)
        put_rule(context, rule)
        emit(context, 5)
        await eventually(lambda: endpoint.accepted[-1] == 5)
    assert 2 not in endpoint.accepted


async def test_many_events_take_few_writes(endpoint: Endpoint) -> None:
    context = a_world()
    put(context, *a_destination(endpoint.url))
    put_rule(context, a_rule(http_target()))
    emit(context, *range(100))
    emit(context, *range(100), source="other")
    before = context.state.revision
    async with delivering(context):
        await eventually(lambda: len(endpoint.accepted) == 100)
        await eventually(lambda: record_of(context).delivered == 100)
    assert context.state.revision - before <= 12


# ---------------------------------------------------------------- other targets


async def test_a_log_group_gets_the_events() -> None:
    context = a_world()
    target = {"Id": "logs", "Arn": ARNS.log_group("/aws/events/all") + ":*"}
    put_rule(context, a_rule(target))
    async with delivering(context):
        emit(context, 1)
        await eventually(lambda: record_of(context, "rule/logs").problem == "there is no log group /aws/events/all")
        await context.logs.create_group(LogGroup(name="/aws/events/all", created_at=1))
        await eventually(lambda: record_of(context, "rule/logs").delivered == 1)
    (event,) = await context.logs.read("/aws/events/all", "rule/logs")
    assert '"detail":{"n":1}' in event.text
    assert event.at == pytest.approx(context.clock.now() * 1000, abs=60_000)


async def test_an_input_transformer_makes_the_log_event() -> None:
    context = a_world()
    transformer = {
        "InputPathsMap": {"n": "$.detail.n"},
        "InputTemplate": '{"timestamp": 1700000000000, "message": "event <n>"}',
    }
    target = {"Id": "logs", "Arn": ARNS.log_group("/aws/events/all"), "InputTransformer": transformer}
    await context.logs.create_group(LogGroup(name="/aws/events/all", created_at=1))
    put_rule(context, a_rule(target))
    async with delivering(context):
        emit(context, 7)
        await eventually(lambda: record_of(context, "rule/logs").delivered == 1)
    (event,) = await context.logs.read("/aws/events/all", "rule/logs")
    assert (event.at, event.text) == (1_700_000_000_000, "event 7")


async def test_an_ecs_target_runs_once_for_each_event_whenever_it_is_killed() -> None:
    for revision_from_end in range(6):
        await runs_once_for_each_event(revision_from_end)


async def runs_once_for_each_event(revision_from_end: int) -> None:
    context = a_world()
    host = an_instance("h1", cpu=100_000, memory=100_000)
    put(context, ClusterRecord(name="default", created_at=1.0), host, a_definition())
    connect(context, host)
    overrides = '{"containerOverrides": [{"name": "web", "command": ["<n>"]}]}'
    target = {
        "Id": "run",
        "Arn": ARNS.cluster("default"),
        "EcsParameters": {"TaskDefinitionArn": "web:1", "TaskCount": 1},
        "InputTransformer": {"InputPathsMap": {"n": "$.detail.n"}, "InputTemplate": overrides},
    }
    put_rule(context, a_rule(target))
    emit(context, 1, 2, 3)
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    journal.hold()
    async with delivering(context):
        await eventually(lambda: len(context.state.schedule_runs) == 3)
    journal.release(context.state.revision - revision_from_end)
    again = await killed(context)
    connect(again, *again.state.instances)
    async with delivering(again):
        await eventually(lambda: len(again.state.schedule_runs) == 3)
    runs = list(again.state.schedule_runs)
    assert [run.outcome for run in runs] == [RunOutcome.STARTED] * 3
    commands = [again.state.tasks.get(run.tasks[0]).overrides["containerOverrides"][0]["command"] for run in runs]  # type: ignore[union-attr]
    assert commands == [["1"], ["2"], ["3"]]
    assert len(again.state.tasks) == 3
