"""How long a log group's events are kept, and whether it may be deleted: PutRetentionPolicy, DeleteRetentionPolicy,
PutLogGroupDeletionProtection.
"""

from typing import Final

from msgspec.structs import replace

from controlplane.api.logs.arguments import find_group
from controlplane.api.logs.calls import invalid, logs_operation
from controlplane.api.registry import Document
from controlplane.context import Context

__all__ = ["RETENTION_DAYS"]

#: What CloudWatch takes as a retention.
RETENTION_DAYS: Final = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


@logs_operation("PutRetentionPolicy")
async def put_retention_policy(context: Context, request: Document) -> Document:
    """Have a log group's events deleted when they are older than so many days."""
    days = request["retentionInDays"]
    if days not in RETENTION_DAYS:
        raise invalid(
            f"1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint:"
            f" Member must satisfy enum value set: [{', '.join(map(str, RETENTION_DAYS))}]"
        )
    await context.logs.change_group(request["logGroupName"], lambda group: replace(group, retention_days=days))
    return {}


@logs_operation("DeleteRetentionPolicy")
async def delete_retention_policy(context: Context, request: Document) -> Document:
    """Keep a log group's events for as long as the store has room."""
    await context.logs.change_group(request["logGroupName"], lambda group: replace(group, retention_days=None))
    return {}


@logs_operation("PutLogGroupDeletionProtection")
async def put_log_group_deletion_protection(context: Context, request: Document) -> Document:
    """Forbid, or allow again, that a log group or a stream of it is deleted."""
    name, protected = find_group(context, request["logGroupIdentifier"]).name, request["deletionProtectionEnabled"]
    await context.logs.change_group(name, lambda group: replace(group, deletion_protection=protected))
    return {}
