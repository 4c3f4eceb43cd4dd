"""Tags of log groups: TagResource, UntagResource, ListTagsForResource, and their elder sisters that take a name."""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from controlplane.api.arguments import MAX_TAGS
from controlplane.api.errors import ApiError
from controlplane.api.logs.arguments import find_group
from controlplane.api.logs.calls import invalid, logs_operation
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.logs.api import LogGroup

__all__ = ["merged"]

#: AWS keeps this beginning of a key, in any case, for itself.
_RESERVED_PREFIX: Final = "aws:"


class _TooManyTags(ApiError):
    """A log group would have more than 50 tags."""

    def __init__(self, group: str) -> None:
        super().__init__(
            f"The log group {group} would have more than {MAX_TAGS} tags, the limit for a resource.",
            code="TooManyTagsException",
        )
        self.members = {"resourceName": group}


def merged(existing: Mapping[str, str], given: Mapping[str, str], group: str) -> dict[str, str]:
    """Return tags on top of existing ones. Raises ApiError for reserved keys, and beyond 50 tags."""
    for key in given:
        if key.lower().startswith(_RESERVED_PREFIX):
            raise invalid(f"tags: the key '{key}' can't be used: keys that begin with 'aws:' are reserved.")
    tags = {**existing, **given}
    if len(tags) > MAX_TAGS:
        raise _TooManyTags(group)
    return tags


@logs_operation("TagResource")
async def tag_resource(context: Context, request: Document) -> Document:
    """Give a log group, named by its ARN, tags beside those it has; of equal keys the new value counts."""
    return await _tag(context, _resource(context, request), request["tags"])


@logs_operation("UntagResource")
async def untag_resource(context: Context, request: Document) -> Document:
    """Take tags off a log group, named by its ARN; keys that it doesn't have are passed over."""
    return await _untag(context, _resource(context, request), request["tagKeys"])


@logs_operation("ListTagsForResource")
async def list_tags_for_resource(context: Context, request: Document) -> Document:
    """List the tags of a log group, named by its ARN."""
    return {"tags": _resource(context, request).tags}


@logs_operation("TagLogGroup")
async def tag_log_group(context: Context, request: Document) -> Document:
    """Do what TagResource does, for a log group's name."""
    return await _tag(context, context.logs.group(request["logGroupName"]), request["tags"])


@logs_operation("UntagLogGroup")
async def untag_log_group(context: Context, request: Document) -> Document:
    """Do what UntagResource does, for a log group's name."""
    return await _untag(context, context.logs.group(request["logGroupName"]), request["tags"])


@logs_operation("ListTagsLogGroup")
async def list_tags_log_group(context: Context, request: Document) -> Document:
    """Do what ListTagsForResource does, for a log group's name."""
    return {"tags": context.logs.group(request["logGroupName"]).tags}


def _resource(context: Context, request: Document) -> LogGroup:
    arn = request["resourceArn"]
    if not arn.startswith("arn:"):
        raise invalid(
            f"resourceArn must be the ARN of a log group ({context.arns.log_group('NAME')}), but was '{arn}'."
        )
    return find_group(context, arn)


async def _tag(context: Context, group: LogGroup, tags: Mapping[str, str]) -> Document:
    await context.logs.change_group(
        group.name, lambda present: replace(present, tags=merged(present.tags, tags, group.name))
    )
    return {}


async def _untag(context: Context, group: LogGroup, keys: Iterable[str]) -> Document:
    gone = set(keys)

    def without(present: LogGroup) -> LogGroup:
        return replace(present, tags={key: value for key, value in present.tags.items() if key not in gone})

    await context.logs.change_group(group.name, without)
    return {}
