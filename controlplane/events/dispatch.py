"""Bringing one event to one target, once: an HTTP request, a log event, or tasks that are started."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from controlplane.context import Context
from controlplane.events.api import NumberedEvent
from controlplane.events.outgoing import Outgoing, outgoing
from controlplane.events.retrying import Outcome, Verdict
from controlplane.events.targets import TargetKind, connection_of, destination_of, kind_of, log_group_of
from controlplane.events.transform import BadInput
from controlplane.logs.api import GroupMissing, LogEvent, LogStoreError, StreamExists
from controlplane.schedules.act import act
from controlplane.schedules.decide import Occasion, decide
from controlplane.schedules.look import look_at
from controlplane.state.schedule_records import RuleRecord

__all__ = ["Post", "deliver", "start_tasks", "time_of"]


class Post(Protocol):
    """What sends requests (see `sending.Sender`)."""

    async def send(self, request: Outgoing) -> Outcome:
        """Send a request once and say how it went."""
        ...


def start_tasks(context: Context, rule: RuleRecord, target: Mapping[str, Any], event: NumberedEvent, text: str) -> None:
    """Begin a run of an ECS target for an event, as for a due time. Joins the caller's transaction."""
    document = event.document
    now = context.clock.now()
    given = any(target.get(name) for name in ("InputPath", "InputTransformer"))
    occasion = Occasion(
        target_id=target["Id"],
        at=event.at,
        id=str(document.get("id", "")),
        # The event itself is no use to ECS; its Input is the target's own.
        input=text if given else "",
    )
    snapshot = look_at(context.state, rule)
    act(context, snapshot, decide(snapshot, now, occasions=(occasion,)))


async def deliver(
    context: Context, post: Post, rule: RuleRecord, target: Mapping[str, Any], event: Mapping[str, Any], text: str
) -> Outcome:
    """Bring `text`, made of an event, to an API destination or a log group. On cancel it may have arrived."""
    if kind_of(target["Arn"]) is TargetKind.HTTP:
        return await _send(context, post, target, event, text)
    return await _write(context, rule, target, event, text)


async def _send(
    context: Context, post: Post, target: Mapping[str, Any], event: Mapping[str, Any], text: str
) -> Outcome:
    destination = destination_of(context.state, target["Arn"])
    if destination is None:
        return Outcome(Verdict.RETRY, f"there is no API destination {target['Arn']} any more")
    connection = connection_of(context.state, destination)
    if connection is None:
        return Outcome(Verdict.RETRY, f"there is no connection {destination.connection} any more")
    try:
        request = outgoing(target, destination, connection, event, text, now=context.clock.now())
    except BadInput as error:  # of the target or the destination, which can be mended
        return Outcome(Verdict.RETRY, f"the request can't be made: {error}")
    except ValueError as error:  # of the event
        return Outcome(Verdict.REFUSED, f"the request can't be made: {error}")
    return await post.send(request)


async def _write(
    context: Context, rule: RuleRecord, target: Mapping[str, Any], event: Mapping[str, Any], text: str
) -> Outcome:
    """Write a log event to a stream of its own for each target, RULE/TARGET."""
    group, stream = log_group_of(target["Arn"]), f"{rule.name}/{target['Id']}"
    now = context.clock.now()
    at, message = _log_event(text, time_of(event, now)) if target.get("InputTransformer") else (None, text)
    entry = LogEvent(at=round(time_of(event, now) * 1000) if at is None else at, text=message)
    try:
        with suppress(StreamExists):
            await context.logs.create_stream(group, stream, at=round(now * 1000))
        await context.logs.append(group, stream, [entry], ingested_at=round(now * 1000))
    except GroupMissing:
        return Outcome(Verdict.RETRY, f"there is no log group {group}")
    except LogStoreError as error:
        return Outcome(Verdict.RETRY, str(error))
    return Outcome(Verdict.DELIVERED)


def _log_event(text: str, default_s: float) -> tuple[int | None, str]:
    """Read what EventBridge asks of a log group's InputTransformer: `{"timestamp": MILLISECONDS, "message": TEXT}`."""
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None, text
    if not isinstance(document, dict) or set(document) != {"timestamp", "message"}:
        return None, text
    at, message = document["timestamp"], document["message"]
    said = message if isinstance(message, str) else msgspec.json.encode(message).decode()
    return (at if isinstance(at, int) and not isinstance(at, bool) else round(default_s * 1000)), said


def time_of(event: Mapping[str, Any], default: float) -> float:
    """Return an event's time in epoch seconds."""
    try:
        moment = datetime.fromisoformat(event["time"])
    except (KeyError, TypeError, ValueError):
        return default
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
