"""Log streams: CreateLogStream, DeleteLogStream, DescribeLogStreams."""

from typing import Final, Literal

from controlplane.api.logs.arguments import millis, page_token, required_group, token_key
from controlplane.api.logs.calls import invalid, logs_operation
from controlplane.api.logs.groups import check_unprotected
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.logs.api import LogStream

__all__ = ["sequence_token"]

#: Streams in a page, if a request doesn't say.
_PAGE: Final = 50

_ORDERS: Final[dict[str, Literal["name", "last_event"]]] = {"LogStreamName": "name", "LastEventTime": "last_event"}


@logs_operation("CreateLogStream")
async def create_log_stream(context: Context, request: Document) -> Document:
    """Make an empty log stream in a group."""
    await context.logs.create_stream(request["logGroupName"], request["logStreamName"], at=millis(context))
    return {}


@logs_operation("DeleteLogStream")
async def delete_log_stream(context: Context, request: Document) -> Document:
    """Delete a log stream with its events, unless its group is protected."""
    group = context.logs.group(request["logGroupName"])
    check_unprotected(group)
    await context.logs.delete_stream(group.name, request["logStreamName"])
    return {}


@logs_operation("DescribeLogStreams")
async def describe_log_streams(context: Context, request: Document) -> Document:
    """Describe a group's log streams, by name or by the time of their last event; those without any count as oldest."""
    group = required_group(context, request)
    order_by, prefix = request.get("orderBy", "LogStreamName"), request.get("logStreamNamePrefix", "")
    if prefix and order_by == "LastEventTime":
        raise invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    size, descending = request.get("limit", _PAGE), request.get("descending", False)
    pages = f"DescribeLogStreams {order_by} {descending}"
    found = await context.logs.streams(
        group.name,
        prefix=prefix,
        order=_ORDERS[order_by],
        descending=descending,
        after=token_key(request, pages, tuple[int, str]),
        limit=size + 1,
    )
    answer: Document = {"logStreams": [_view(context, stream) for stream in found[:size]]}
    if len(found) > size:
        last = found[size - 1]
        answer["nextToken"] = page_token(pages, (last.last_at or 0, last.name))
    return answer


def sequence_token(number: int) -> str:
    """Return the token for the next PutLogEvents, which nobody needs any more; elder clients still pass it on."""
    return f"{number:056d}"


def _view(context: Context, stream: LogStream) -> Document:
    view = {
        "logStreamName": stream.name,
        "creationTime": stream.created_at,
        "arn": context.arns.log_stream(stream.group, stream.name),
        # As CloudWatch gives it for streams, whatever they hold.
        "storedBytes": 0,
        "uploadSequenceToken": sequence_token(stream.next_number),
    }
    known = {
        "firstEventTimestamp": stream.first_at,
        "lastEventTimestamp": stream.last_at,
        "lastIngestionTime": stream.last_ingested_at,
    }
    return view | {name: at for name, at in known.items() if at is not None}
