"""`homeport webhooks`, and the operations behind it, with a real endpoint that takes what is sent."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from controlplane.events.delivery import run
from controlplane.events.feed import JournalFeed
from controlplane.events.notes import CustomFacts
from controlplane.state.delivery_records import DeliveryRecord
from tests.contract.commandline import Homeport
from tests.contract.schedules import beside
from tests.contract.server import ApiServer
from tests.fakes.endpoint import Endpoint, serve_endpoint


@pytest.fixture
def endpoint(server: ApiServer) -> Iterator[Endpoint]:
    stack = AsyncExitStack()
    served: Endpoint = server.thread.call(lambda: stack.enter_async_context(serve_endpoint()))
    yield served
    server.thread.call(stack.aclose)


@pytest.fixture
def delivering(server: ApiServer) -> Iterator[None]:
    context = server.context
    with beside(server, run(context, JournalFeed(context.state.journal, context.arns))):
        yield


def until(check: Callable[[], bool]) -> None:
    """Wait until something holds that only a request, or another thread, can tell."""
    deadline = time.monotonic() + 15
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def emit(server: ApiServer, *numbers: int, detail_type: str = "ECS Task State Change") -> None:
    def put() -> None:
        for number in numbers:
            with server.context.state.transaction() as transaction:
                transaction.emit(CustomFacts(source="aws.ecs", detail_type=detail_type, detail={"n": number}))

    server.call(put)


def record(server: ApiServer, key: str) -> DeliveryRecord:
    """How a target is. What is logged meanwhile would get into the output of a command."""
    found: DeliveryRecord | None = server.call(lambda: server.context.state.event_deliveries.get(key))
    assert found is not None
    return found


def listed(homeport: Homeport) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(homeport("webhooks", "ls", "--json").stdout)
    return found


@pytest.mark.usefixtures("delivering")
def test_a_webhook_from_its_making_to_its_end(server: ApiServer, homeport: Homeport, endpoint: Endpoint) -> None:
    assert "There are no webhooks." in homeport("webhooks", "ls").output
    made = homeport("webhooks", "add", endpoint.url + "/in", "--name", "mine", "--type", "task")
    secret = made.stdout.split("secret:")[1].strip()
    emit(server, 1)
    emit(server, 99, detail_type="ECS Service Action")
    emit(server, 2)
    until(lambda: endpoint.accepted == [1, 2])
    headers = {name.lower(): value for name, value in endpoint.requests[0].headers.items()}
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + endpoint.requests[0].body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, message, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    until(lambda: record(server, "mine/webhook").delivered == 2)
    assert listed(homeport)[0]["delivered"] == 2
    shown = homeport("webhooks", "ls").stdout
    assert "mine" in shown
    assert "ACTIVE" in shown
    assert secret not in shown + homeport("webhooks", "ls", "--json").stdout
    # Its parts are EventBridge's.
    events = server.client("events")
    assert events.describe_rule(Name="mine")["EventPattern"] == '{"detail-type": ["ECS Task State Change"]}'
    assert events.describe_api_destination(Name="mine")["InvocationEndpoint"] == endpoint.url + "/in"
    assert secret not in str(events.describe_connection(Name="mine"))
    homeport("webhooks", "rm", "mine")
    assert listed(homeport) == []
    assert events.list_rules()["Rules"] == events.list_connections()["Connections"] == []
    assert "There is no webhook named 'mine'." in homeport("webhooks", "rm", "mine", code=3).output


def test_a_type_is_short_for_all_that_events_shows_as_such(server: ApiServer, homeport: Homeport) -> None:
    homeport("webhooks", "add", "https://a.test/", "--name", "mine", "--type", "service", "--type", "Homeport Test")
    pattern = json.loads(server.client("events").describe_rule(Name="mine")["EventPattern"])
    assert pattern == {"detail-type": ["ECS Service Action", "Homeport Service Action", "Homeport Test"]}


@pytest.mark.usefixtures("delivering")
def test_why_a_webhook_fails_is_told(server: ApiServer, homeport: Homeport, endpoint: Endpoint) -> None:
    homeport("webhooks", "add", endpoint.url)  # named by its host
    endpoint.then(503, Retry_After="600")
    emit(server, 1)
    until(lambda: record(server, "127.0.0.1/webhook").attempts == 1)
    (hook,) = listed(homeport)
    assert (hook["name"], hook["attempts"], hook["state"]) == ("127.0.0.1", 1, "RETRYING")
    assert hook["problem"] == "HTTP 503 Service Unavailable: the endpoint says no"
    shown = " ".join(homeport("webhooks", "ls").stdout.split())
    assert "HTTP 503" in shown
    server.clock.move(100)
    (hook,) = listed(homeport)
    assert hook["lagS"] == pytest.approx(100, abs=30)


@pytest.mark.usefixtures("delivering")
def test_gone_is_over_until_the_rule_is_enabled(server: ApiServer, homeport: Homeport, endpoint: Endpoint) -> None:
    homeport("webhooks", "add", endpoint.url, "--name", "mine")
    endpoint.then(410)
    emit(server, 1)
    until(lambda: bool(record(server, "mine/webhook").disabled))
    assert listed(homeport)[0]["state"] == "GONE"
    events = server.client("events")
    events.disable_rule(Name="mine")
    assert listed(homeport)[0]["state"] == "DISABLED"
    events.enable_rule(Name="mine")
    emit(server, 2)
    until(lambda: endpoint.accepted == [2])


def test_a_webhook_is_tried_out(homeport: Homeport, endpoint: Endpoint) -> None:
    homeport("webhooks", "add", endpoint.url, "--name", "mine")
    assert "taken after" in homeport("webhooks", "test", "mine").stdout
    assert json.loads(endpoint.requests[0].body)["detail-type"] == "Homeport Webhook Test"
    endpoint.then(500)
    failed = homeport("webhooks", "test", "mine", code=1)
    assert "It wasn't taken: HTTP 500 Internal Server Error: the endpoint says no." in failed.output
    homeport("webhooks", "test", "none", code=3)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("nothing",), 1, "nothing is not a URL"),
        (("http://169.254.169.254/", "--name", "a"), 1, "link-local"),
        (("http://8.8.8.8/", "--name", "a"), 1, "only https is sent there"),
        (("https://a.test/", "--pattern", "{}"), 1, "Event pattern is not valid. Reason: an empty object"),
        (("https://a.test/", "--pattern", "{}", "--type", "task"), 2, "can't be given both"),
        (("https://a.test/", "--name", "a b"), 1, "failed to satisfy constraint"),
        (("https://a.test/", "--name", "taken"), 1, "There is a rule named taken already"),
    ],
)
def test_webhooks_that_are_refused(
    server: ApiServer, homeport: Homeport, arguments: tuple[str, ...], code: int, why: str
) -> None:
    server.client("events").put_rule(Name="taken", EventPattern='{"source": ["x"]}')
    with server.unchanged():
        assert why in " ".join(homeport("webhooks", "add", *arguments, code=code).output.split())


def test_a_rule_with_other_targets_is_no_webhook_to_remove(server: ApiServer, homeport: Homeport) -> None:
    homeport("webhooks", "add", "https://a.test/", "--name", "mine")
    events = server.client("events")
    logs = {"Id": "logs", "Arn": server.context.arns.log_group("/aws/events/x")}
    events.put_targets(Rule="mine", Targets=[logs])
    assert [each["id"] for each in listed(homeport)] == ["mine/logs", "mine/webhook"]
    assert "has other targets" in homeport("webhooks", "rm", "mine", code=1).output


def test_a_schedule_tells_its_api_destinations_of_each_due_time(
    server: ApiServer, homeport: Homeport, endpoint: Endpoint, delivering: None
) -> None:
    from tests.contract.schedules import Clockwork

    homeport("webhooks", "add", endpoint.url, "--name", "mine")
    events = server.client("events")
    events.put_rule(Name="mine", ScheduleExpression="rate(1 hour)")
    with Clockwork(server).running() as clockwork:
        clockwork.move(3601)
        until(lambda: len(endpoint.requests) == 1)
    event = json.loads(endpoint.requests[0].body)
    assert (event["source"], event["detail-type"], event["detail"]) == ("aws.events", "Scheduled Event", {})
    assert event["resources"] == [server.context.arns.rule("mine")]
    server.clock.move(-3601)  # the command line signs by its own
    assert "mine" in homeport("schedules").stdout
    assert "1 target gets events: see `homeport webhooks ls`" in homeport("schedule", "rule/mine").stdout
    events.put_rule(Name="mine", EventPattern='{"source": ["aws.ecs"]}')
    assert "on events" in homeport("schedules").stdout
