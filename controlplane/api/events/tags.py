"""The tags of EventBridge's rules."""

from msgspec.structs import replace

from controlplane.api.events.common import BUS, missing, put
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import merged_tags, rendered_tags
from controlplane.context import Context
from controlplane.state.schedule_records import RuleRecord


@operation("events", "TagResource")
def tag_resource(context: Context, request: Document) -> Document:
    """Add tags to a rule."""
    record = _tagged(context, request)
    put(context, replace(record, tags=merged_tags(request["Tags"], record.tags)))
    return {}


@operation("events", "UntagResource")
def untag_resource(context: Context, request: Document) -> Document:
    """Take tags off a rule."""
    record = _tagged(context, request)
    gone = frozenset(request["TagKeys"])
    put(context, replace(record, tags={key: value for key, value in record.tags.items() if key not in gone}))
    return {}


@operation("events", "ListTagsForResource")
def list_tags_for_resource(context: Context, request: Document) -> Document:
    """List the tags of a rule."""
    return {"Tags": rendered_tags(_tagged(context, request).tags)}


def _tagged(context: Context, request: Document) -> RuleRecord:
    arn = request["ResourceARN"]
    name = arn.rsplit("/", 1)[-1]
    record = context.state.rules.get(name)
    if record is None or arn not in (context.arns.rule(name), context.arns.rule(f"{BUS}/{name}")):
        raise missing(f"Rule {name:.64} does not exist on EventBus {BUS}.")
    return record
