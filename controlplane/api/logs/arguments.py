"""Arguments that many operations of CloudWatch Logs share: which log group is meant, times, pages.

A log group is given by name or, where a `logGroupIdentifier` is taken, by name or ARN. Times are epoch milliseconds.
"""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.logs.calls import invalid
from controlplane.api.pagination import decode_token, encode_token
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.logs.api import GroupMissing, LogGroup

__all__ = [
    "find_group",
    "group_name",
    "group_of",
    "invalid_token",
    "millis",
    "page_token",
    "required_group",
    "times",
    "token_key",
]

#: What a token's key is made of: numbers that every store can take, and names.
_Part = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | str

T = TypeVar("T")


def find_group(context: Context, identifier: str) -> LogGroup:
    """Return the log group of a name or ARN. Raises GroupMissing, also for an ARN of elsewhere."""
    return context.logs.group(group_name(context, identifier))


def group_name(context: Context, identifier: str) -> str:
    """Return the name of the log group that a name or ARN means, if there is one. Raises GroupMissing for an ARN of
    elsewhere.
    """
    if not identifier.startswith("arn:"):
        return identifier
    here = context.arns.log_group("")
    if not identifier.startswith(here):
        raise GroupMissing(f"{identifier} is no log group of this account and region")
    return identifier.removeprefix(here)


def group_of(context: Context, request: Document) -> LogGroup | None:
    """Return the group of `logGroupName` or `logGroupIdentifier`; None if neither is given.

    Raises InvalidParameterException if both are, GroupMissing.
    """
    name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
    if name is not None and identifier is not None:
        raise invalid("LogGroup name and LogGroup ARN are mutually exclusive parameters.")
    if identifier is not None:
        return find_group(context, identifier)
    return None if name is None else context.logs.group(name)


def required_group(context: Context, request: Document) -> LogGroup:
    """Return the group of `logGroupName` or `logGroupIdentifier`.

    Raises InvalidParameterException unless exactly one is given, GroupMissing.
    """
    group = group_of(context, request)
    if group is None:
        raise invalid("Either logGroupName or logGroupIdentifier must be specified.")
    return group


def times(request: Document) -> tuple[int | None, int | None]:
    """Return `startTime` and `endTime`. Raises InvalidParameterException if the end lies before the start."""
    start, end = request.get("startTime"), request.get("endTime")
    if start is not None and end is not None and end < start:
        raise invalid(f"endTime must not be before startTime, but {end} is before {start}.")
    return start, end


def millis(context: Context) -> int:
    """Return the time in epoch milliseconds."""
    return int(context.clock.now() * 1000)


# ---------------------------------------------------------------- pages


def page_token(operation: str, key: Sequence[int | str]) -> str:
    """Make the nextToken that stands for "behind this key" in an operation's answers."""
    return encode_token(msgspec.json.encode([operation, *key]).decode())


def token_key(request: Document, operation: str, form: type[T]) -> T | None:
    """Return the key inside a request's `nextToken`, a tuple of type `form`; None without a token.

    Raises InvalidParameterException if it isn't a token of this operation.
    """
    token = request.get("nextToken")
    if not token:
        return None
    try:
        said, *key = msgspec.json.decode(decode_token(token), type=list[_Part])
        if said != operation:
            raise invalid_token()
        return msgspec.convert(key, form)
    except (msgspec.MsgspecError, ValueError, InvalidParameterException) as error:
        raise invalid_token() from error


def invalid_token() -> ApiError:
    """Return the error for a nextToken that no earlier call gave out."""
    return invalid("The specified nextToken is invalid.")
