"""Webhooks: a rule, a connection that signs and an API destination in one, and how deliveries to any target go.

    CreateWebhook     all three by one name, in one transaction; the secret is told this once
    DescribeWebhooks  every target that events are brought to: how far it is, and why it fails
    DeleteWebhook     takes all three away
    TestWebhook       sends an event made for the purpose, now, and says how the endpoint answered

A webhook is nothing of its own: EventBridge's operations show and change its parts.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from controlplane.api import pagination
from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.events.connections import create_connection
from controlplane.api.events.destinations import create_api_destination
from controlplane.api.events.rules import put_rule
from controlplane.api.events.targets import put_targets, remove_targets
from controlplane.api.homeport_service import SERVICE, Paged, Request, parse
from controlplane.api.model import load_service
from controlplane.api.registry import Document, operation
from controlplane.api.validation import check
from controlplane.context import Context
from controlplane.events.dispatch import deliver
from controlplane.events.outgoing import SIGNATURE, new_secret
from controlplane.events.retrying import Verdict
from controlplane.events.sending import Sender
from controlplane.events.targets import TargetKind, delivery_of, destination_of, is_followed, kind_of, target_of
from controlplane.schedules.act import forget_trigger
from controlplane.state.schedule_records import RuleRecord
from homeport.clock import iso_time
from homeport.ids import new_uuid

__all__ = ["EVERYTHING", "TARGET_ID"]

#: The Id of a webhook's target.
TARGET_ID: Final = "webhook"
#: The pattern of a webhook that asks for no other: whatever Homeport tells.
EVERYTHING: Final = '{"source": ["aws.ecs", "homeport"]}'


class _CreateWebhook(Request, frozen=True):
    name: str
    url: str
    pattern: str | None = None
    #: `whsec_...`; None: one is made.
    secret: str | None = None


class _DescribeWebhooks(Paged, frozen=True):
    pass


class _Webhook(Request, frozen=True):
    name: str


@operation(SERVICE, "CreateWebhook")
def create_webhook(context: Context, document: Document) -> Document:
    """Make a webhook; answer with its secret, which is never shown again."""
    request = parse(document, _CreateWebhook)
    state, name = context.state, request.name
    for what, known in (
        ("rule", name in state.rules),
        ("connection", name in state.connections),
        ("API destination", name in state.api_destinations),
    ):
        if known:
            raise InvalidParameterException(f"There is a {what} named {name} already: give the webhook another name.")
    secret = request.secret or new_secret(context.random)
    key = {"ApiKeyAuthParameters": {"ApiKeyName": SIGNATURE, "ApiKeyValue": secret}}
    with state.transaction():
        create_connection(
            context, _checked("CreateConnection", Name=name, AuthorizationType="API_KEY", AuthParameters=key)
        )
        connection = state.connections.get(name)
        assert connection is not None
        arn = context.arns.connection(name, connection.id)
        given = {"Name": name, "ConnectionArn": arn, "InvocationEndpoint": request.url, "HttpMethod": "POST"}
        create_api_destination(context, _checked("CreateApiDestination", **given))
        destination = state.api_destinations.get(name)
        assert destination is not None
        put_rule(context, _checked("PutRule", Name=name, EventPattern=request.pattern or EVERYTHING))
        target = {"Id": TARGET_ID, "Arn": context.arns.api_destination(name, destination.id)}
        put_targets(context, _checked("PutTargets", Rule=name, Targets=[target]))
    return {"name": name, "ruleArn": context.arns.rule(name), "secret": secret}


@operation(SERVICE, "DescribeWebhooks")
def describe_webhooks(context: Context, document: Document) -> Document:
    """Answer with every target that events are brought to: webhooks, and those that rules have otherwise."""
    parse(document, _DescribeWebhooks)
    after = pagination.after(document)
    page = pagination.take(_deliveries(context, after), document, key=lambda view: str(view["id"]), maximum=1000)
    return {"webhooks": page.items, **page.more}


@operation(SERVICE, "DeleteWebhook")
def delete_webhook(context: Context, document: Document) -> Document:
    """Delete a webhook: nothing more is sent."""
    name = parse(document, _Webhook).name
    rule = _webhook(context, name)
    if len(rule.targets) > 1:
        raise InvalidParameterException(f"The rule {name} has other targets, too: remove them first.")
    with context.state.transaction() as transaction:
        remove_targets(context, {"Rule": name, "Ids": [TARGET_ID]})
        forget_trigger(context, transaction, context.state.rules.get(name) or rule)
        for record in (context.state.api_destinations.get(name), context.state.connections.get(name)):
            if record is not None:
                transaction.delete(record)
    return {}


@operation(SERVICE, "TestWebhook")
async def send_test(context: Context, document: Document) -> Document:
    """Send a test event to a webhook, once, beside what waits for it; answer whether it was taken, or why not."""
    rule = _webhook(context, parse(document, _Webhook).name)
    target = target_of(rule, TARGET_ID)
    assert target is not None
    event = _test_event(context, rule)
    begun = context.clock.monotonic()
    async with Sender(context.clock) as sender:
        outcome = await deliver(context, sender, rule, target, event, msgspec.json.encode(event).decode())
    return {
        "delivered": outcome.verdict is Verdict.DELIVERED,
        "problem": outcome.problem,
        "tookS": context.clock.monotonic() - begun,
        "eventId": event["id"],
    }


# ---------------------------------------------------------------- parts


def _checked(name: str, **members: Any) -> Document:
    """Return a request as the front door would pass it on. Raises ApiError ValidationException."""
    operations = load_service("events").operations
    assert operations is not None
    return check(operations[name].input, members, validation_error="ValidationException")


def _webhook(context: Context, name: str) -> RuleRecord:
    rule = context.state.rules.get(name)
    target = None if rule is None else target_of(rule, TARGET_ID)
    destination = None if target is None else destination_of(context.state, target["Arn"])
    if rule is None or destination is None or destination.name != name:
        raise ApiError(f"There is no webhook named '{name:.100}'.", code="ResourceNotFoundException")
    return rule


def _test_event(context: Context, rule: RuleRecord) -> Document:
    return {
        "version": "0",
        "id": new_uuid(context.random),
        "detail-type": "Homeport Webhook Test",
        "source": "homeport",
        "account": context.arns.account,
        "time": iso_time(context.clock.now()),
        "region": context.arns.region,
        "resources": [context.arns.rule(rule.name)],
        "detail": {},
    }


def _deliveries(context: Context, after: str | None) -> Iterator[Document]:
    first = (after or "").partition("/")[0]
    for rule in context.state.rules:
        if rule.name < first:
            continue
        for target in sorted(rule.targets, key=lambda target: str(target["Id"])):
            if is_followed(rule, target) and (after is None or f"{rule.name}/{target['Id']}" > after):
                yield _view(context, rule, target)


def _view(context: Context, rule: RuleRecord, target: Document) -> Document:
    record = delivery_of(context.state, rule.name, target["Id"])
    destination = destination_of(context.state, target["Arn"])
    kind = kind_of(target["Arn"])
    now = context.clock.now()
    view: Document = {
        "id": f"{rule.name}/{target['Id']}",
        "name": rule.name,
        "targetId": target["Id"],
        "kind": "" if kind is None else kind.value,
        "url": destination.endpoint if kind is TargetKind.HTTP and destination else None,
        "arn": target["Arn"],
        "pattern": rule.pattern or None,
        "state": "DISABLED" if rule.state != "ENABLED" else "ACTIVE",
    }
    if record is not None:
        failing = record.attempts > 0
        view |= {
            "state": _state(rule, record.disabled, failing=failing),
            "delivered": record.delivered,
            "lastDeliveredAt": record.last_delivered_at,
            "dropped": record.dropped,
            "lastDroppedAt": record.last_dropped_at,
            "dropReason": record.drop_reason,
            "attempts": record.attempts,
            "retryAt": record.retry_at,
            "problem": record.disabled or record.problem,
            "lagS": max(0.0, now - record.event_at) if failing and record.event_at is not None else 0.0,
        }
    return view


def _state(rule: RuleRecord, disabled: str, *, failing: bool) -> str:
    if rule.state != "ENABLED":
        return "DISABLED"
    if disabled:
        return "GONE"
    return "RETRYING" if failing else "ACTIVE"
