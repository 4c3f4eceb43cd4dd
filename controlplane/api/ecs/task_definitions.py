"""Task definitions: register, describe, deregister, delete, list.

A revision never changes but for its status: ACTIVE, INACTIVE once deregistered (describable as before), and
DELETE_IN_PROGRESS once deleted. A revision's number is never given twice. Everything the model has is kept as given and
returned; ECS's own defaults are filled in, and no others: clients compare.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from controlplane.api import pagination
from controlplane.api.arguments import check_list_size, render_tags, require, tags_of
from controlplane.api.ecs.definition_rules import check_definition
from controlplane.api.ecs.extensions import restart_attempt_period_s
from controlplane.api.ecs.lookup import find_task_definition
from controlplane.api.ecs.units import cpu_units, memory_mib
from controlplane.api.errors import ClientException, InvalidParameterException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.standalone.tags import standalone_policy
from controlplane.state.records import FamilyRecord, TaskDefinitionRecord

__all__ = ["render_task_definition"]

#: What DeleteTaskDefinitions takes in one call.
_MAX_DELETIONS: Final = 10

#: More than any revision has.
_REVISION_DIGITS: Final = 18

#: Lists that ECS returns empty where a container definition leaves them out.
_CONTAINER_LISTS: Final = ("portMappings", "environment", "mountPoints", "volumesFrom", "systemControls")


@operation("ecs", "RegisterTaskDefinition")
def register_task_definition(context: Context, request: Document) -> Document:
    """Register the next revision of a family."""
    check_definition(request)
    tags = tags_of(request)
    restart_attempt_period_s(tags)
    standalone_policy(tags)
    family = request["family"]
    known = context.state.families.get(family)
    revision = known.last_revision + 1 if known else 1
    record = TaskDefinitionRecord(
        family=family,
        revision=revision,
        document=_document(request),
        registered_at=context.clock.now(),
        registered_by=context.arns.root(),
        tags=tags,
    )
    with context.state.transaction() as transaction:
        transaction.put(FamilyRecord(name=family, last_revision=revision))
        transaction.put(record)
    return {"taskDefinition": render_task_definition(context, record), "tags": render_tags(tags)}


@operation("ecs", "DescribeTaskDefinition")
def describe_task_definition(context: Context, request: Document) -> Document:
    """Describe a revision, whatever its status, or a family's newest ACTIVE one."""
    record = find_task_definition(context, request["taskDefinition"])
    if record is None:
        raise ClientException("Unable to describe task definition.")
    answer: Document = {"taskDefinition": render_task_definition(context, record)}
    if "TAGS" in request.get("include", ()):
        answer["tags"] = render_tags(record.tags)
    return answer


@operation("ecs", "DeregisterTaskDefinition")
def deregister_task_definition(context: Context, request: Document) -> Document:
    """Make a revision INACTIVE; doing it again changes nothing."""
    reference = request["taskDefinition"]
    family, colon, revision = reference.rpartition("/")[2].partition(":")
    if not colon:
        raise ClientException(f"Revision is missing. Name the task definition with its revision, e.g. '{family}:1'.")
    if not revision.isdecimal():
        raise InvalidParameterException(f"Invalid revision number. Number: {revision:.100}")
    record = find_task_definition(context, reference)
    if record is None:
        raise ClientException("The specified task definition does not exist.")
    if record.status == "ACTIVE":
        record = msgspec.structs.replace(record, status="INACTIVE", deregistered_at=context.clock.now())
        with context.state.transaction() as transaction:
            transaction.put(record)
    return {"taskDefinition": render_task_definition(context, record)}


@operation("ecs", "DeleteTaskDefinitions")
def delete_task_definitions(context: Context, request: Document) -> Document:
    """Delete INACTIVE revisions: DELETE_IN_PROGRESS from here on. Those that can't be deleted are in `failures`."""
    references = require(request, "taskDefinitions")
    check_list_size(request, "taskDefinitions", _MAX_DELETIONS)
    deleted: list[Document] = []
    failures: list[Document] = []
    with context.state.transaction() as transaction:
        for reference in references:
            record = find_task_definition(context, reference) if _names_revision(reference) else None
            if record is None or record.status == "ACTIVE":
                failures.append(_deletion_failure(context, reference, record))
                continue
            if record.status == "INACTIVE":
                record = msgspec.structs.replace(
                    record, status="DELETE_IN_PROGRESS", delete_requested_at=context.clock.now()
                )
                transaction.put(record)
            deleted.append(render_task_definition(context, record))
    return {"taskDefinitions": deleted, "failures": failures}


@operation("ecs", "ListTaskDefinitions")
def list_task_definitions(context: Context, request: Document) -> Document:
    """List ARNs by family, then revision; `sort` DESC turns both round. `familyPrefix` is a whole family's name."""
    status = request.get("status", "ACTIVE")
    descending = request.get("sort") == "DESC"
    after = _position(pagination.after(request))
    families = _families(context, after[0] if after else None, descending=descending)
    if prefix := request.get("familyPrefix"):
        families = (family for family in families if family.name == prefix)
    records = (
        record
        for family in families
        if context.state.task_definitions.count("family_status", (family.name, status))
        for record in _revisions(context, family, after, descending=descending)
        if record.status == status
    )
    page = pagination.take(records, request, key=lambda record: record.name)
    arns = [context.arns.task_definition(record.family, record.revision) for record in page.items]
    return {"taskDefinitionArns": arns, **page.more}


@operation("ecs", "ListTaskDefinitionFamilies")
def list_task_definition_families(context: Context, request: Document) -> Document:
    """List families by name: with status ACTIVE those that have an ACTIVE revision, INACTIVE those that have none."""
    status: str = request.get("status", "ALL")
    prefix = request.get("familyPrefix", "")
    count = context.state.task_definitions.count

    def wanted(name: str) -> bool:
        if not name.startswith(prefix) or not count("family", name):
            return False
        active = bool(count("family_status", (name, "ACTIVE")))
        return status == "ALL" or active is (status == "ACTIVE")

    families = context.state.families.page(None, None, after=pagination.after(request))
    page = pagination.take((f.name for f in families if wanted(f.name)), request, key=lambda name: name)
    return {"families": page.items, **page.more}


def render_task_definition(context: Context, record: TaskDefinitionRecord) -> Document:
    """Return a task definition in ECS's shape."""
    rendered: Document = {
        "taskDefinitionArn": context.arns.task_definition(record.family, record.revision),
        **record.document,
        "revision": record.revision,
        "status": record.status,
        "registeredAt": record.registered_at,
        "registeredBy": record.registered_by,
    }
    if record.deregistered_at is not None:
        rendered["deregisteredAt"] = record.deregistered_at
    if record.delete_requested_at is not None:
        rendered["deleteRequestedAt"] = record.delete_requested_at
    return rendered


# ---------------------------------------------------------------- what is kept


def _document(request: Document) -> Document:
    """Return what is kept of a request: all of it but the tags, with ECS's defaults."""
    document = {name: value for name, value in request.items() if name != "tags"}
    document["networkMode"] = document.get("networkMode", "bridge")
    for name in ("volumes", "placementConstraints"):
        document.setdefault(name, [])
    for name, read in (("cpu", cpu_units), ("memory", memory_mib)):
        if text := document.pop(name, ""):
            document[name] = str(read(text))
    document["containerDefinitions"] = [
        _container(container, document["networkMode"]) for container in request["containerDefinitions"]
    ]
    document["compatibilities"] = list(dict.fromkeys(["EXTERNAL", "EC2", *document.get("requiresCompatibilities", ())]))
    return document


def _container(container: Document, network_mode: str) -> Document:
    filled = {"cpu": 0, "essential": True, **{name: [] for name in _CONTAINER_LISTS}, **container}
    filled["portMappings"] = [_port(mapping, network_mode) for mapping in filled["portMappings"]]
    return filled


def _port(mapping: Document, network_mode: str) -> Document:
    if "containerPortRange" in mapping:
        return {"protocol": "tcp", **mapping}
    host_port = mapping.get("hostPort", 0)
    if network_mode in ("host", "awsvpc"):
        host_port = mapping["containerPort"]
    return {"protocol": "tcp", **mapping, "hostPort": host_port}


# ---------------------------------------------------------------- listing


def _position(key: str | None) -> tuple[str, int] | None:
    """Read a token's key, `family:revision`."""
    if key is None:
        return None
    family, _, revision = key.rpartition(":")
    if not family or not revision.isdecimal() or len(revision) > _REVISION_DIGITS:
        raise InvalidParameterException("Invalid token: nextToken belongs to another operation.")
    return family, int(revision)


def _families(context: Context, start: str | None, *, descending: bool) -> Iterator[FamilyRecord]:
    """Iterate families by name from `start` on, that one included."""
    families = context.state.families
    if not descending:
        if start is not None and (first := families.get(start)):
            yield first
        yield from families.page(None, None, after=start)
        return
    # DESC is rare, and families are few beside their revisions: read them all.
    yield from (f for f in reversed(list(families)) if start is None or f.name <= start)


def _revisions(
    context: Context, family: FamilyRecord, after: tuple[str, int] | None, *, descending: bool
) -> Iterator[TaskDefinitionRecord]:
    """Iterate a family's revisions by number; in the family where the last page ended, those behind it."""
    numbers = range(family.last_revision, 0, -1) if descending else range(1, family.last_revision + 1)
    if after is not None and after[0] == family.name:
        numbers = range(after[1] - 1, 0, -1) if descending else range(after[1] + 1, family.last_revision + 1)
    for number in numbers:
        record = context.state.task_definitions.get(f"{family.name}:{number}")
        if record is not None:
            yield record


def _names_revision(reference: str) -> bool:
    return ":" in reference.rpartition("/")[2]


def _deletion_failure(context: Context, reference: str, record: TaskDefinitionRecord | None) -> dict[str, Any]:
    if record is not None:
        arn = context.arns.task_definition(record.family, record.revision)
        return {
            "arn": arn,
            "reason": "The specified task definition is still in ACTIVE status. Please deregister the target and try"
            " again.",
        }
    if not _names_revision(reference):
        return {
            "arn": reference,
            "reason": "The specified task definition identifier is invalid. Specify a valid name or ARN and try again.",
        }
    return {
        "arn": reference,
        "reason": "The specified task definition does not exist. Specify a valid account, family, revision and try"
        " again.",
    }
