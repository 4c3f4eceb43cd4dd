"""TagResource, UntagResource, ListTagsForResource: tags of whatever has an ARN of its own and can be tagged."""

from collections.abc import Callable
from typing import Final

import msgspec

from controlplane.api.arguments import render_tags, tags_of
from controlplane.api.ecs.capacity import FARGATE_PROVIDERS
from controlplane.api.ecs.capacity_providers import check_provider_tags, find_provider
from controlplane.api.ecs.lookup import DEFAULT_CLUSTER, cluster_name, find_cluster, find_task_definition
from controlplane.api.ecs.service_lookup import find_service
from controlplane.api.ecs.service_members import check_service_tags
from controlplane.api.ecs.service_views import primary_revision
from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.state.records import ClusterRecord, InstanceRecord, TaskDefinitionRecord, TaskRecord
from controlplane.state.service_records import CapacityProviderRecord, ServiceRecord, TaskSetRecord
from homeport.arn import ParsedArn, parse_arn
from homeport.errors import InvalidArn

__all__: list[str] = []

_Tagged = (
    ClusterRecord
    | TaskDefinitionRecord
    | TaskRecord
    | InstanceRecord
    | CapacityProviderRecord
    | ServiceRecord
    | TaskSetRecord
)


@operation("ecs", "TagResource")
def tag_resource(context: Context, request: Document) -> Document:
    """Add tags to a resource; a key it has already gets the new value."""
    record = _found(context, request["resourceArn"])
    _store(context, record, tags_of(request, existing=record.tags))
    return {}


@operation("ecs", "UntagResource")
def untag_resource(context: Context, request: Document) -> Document:
    """Take tags off a resource; keys that it doesn't have are passed over."""
    record = _found(context, request["resourceArn"])
    gone = frozenset(request["tagKeys"])
    _store(context, record, {key: value for key, value in record.tags.items() if key not in gone})
    return {}


@operation("ecs", "ListTagsForResource")
def list_tags_for_resource(context: Context, request: Document) -> Document:
    """List a resource's tags."""
    try:
        record = _found(context, request["resourceArn"])
    except ApiError as error:
        # The model of this operation, unlike the other two, has no ResourceNotFoundException.
        if error.code == "ResourceNotFoundException":
            raise InvalidParameterException(error.message) from error
        raise
    return {"tags": render_tags(record.tags)}


def _store(context: Context, record: _Tagged, tags: dict[str, str]) -> None:
    if isinstance(record, CapacityProviderRecord):
        check_provider_tags(tags)
    if isinstance(record, ServiceRecord):
        revision = primary_revision(context, record)
        definition = context.state.task_definitions.get(revision.task_definition) if revision is not None else None
        check_service_tags(tags, {} if definition is None else definition.tags)
    with context.state.transaction() as transaction:
        transaction.put(msgspec.structs.replace(record, tags=tags))


def _found(context: Context, reference: str) -> _Tagged:
    """Return what an ARN names.

    Raises InvalidParameterException for what is no ARN of something that can be tagged, ClusterNotFoundException or
    ResourceNotFoundException for what isn't there.
    """
    try:
        arn = parse_arn(reference)
    except InvalidArn as error:
        raise InvalidParameterException(f"Invalid resourceArn '{reference:.300}': an ARN is needed.") from error
    find = _FINDERS.get(arn.type)
    if arn.service != "ecs" or find is None:
        raise InvalidParameterException(
            f"Invalid resourceArn '{reference:.300}': the resources that can be tagged are {', '.join(_FINDERS)}."
        )
    local = (arn.region, arn.account) == (context.arns.region, context.arns.account)
    record = find(context, reference, arn) if local or arn.type == "cluster" else None
    if record is None:
        raise ApiError(
            f"The specified {arn.type} was not found: '{reference:.300}'. Specify a valid ARN and try again.",
            code="ResourceNotFoundException",
        )
    return record


def _cluster(context: Context, reference: str, _: ParsedArn) -> _Tagged:
    name = cluster_name(context, reference)
    record = None if name is None else context.state.clusters.get(name)
    if record is not None and record.status == "INACTIVE":
        # Unlike every other operation; Terraform takes this sentence for "it is gone".
        raise InvalidParameterException("The specified cluster is inactive. Specify an active cluster and try again.")
    return find_cluster(context, reference)


def _task_definition(context: Context, reference: str, arn: ParsedArn) -> _Tagged | None:
    if ":" not in arn.path:
        raise InvalidParameterException(f"Invalid resourceArn '{reference:.300}': the revision is missing.")
    return find_task_definition(context, reference)


def _task(context: Context, _: str, arn: ParsedArn) -> _Tagged | None:
    record = context.state.tasks.get(arn.name)
    return record if record is not None and arn.cluster in (record.cluster, None) else None


def _container_instance(context: Context, _: str, arn: ParsedArn) -> _Tagged | None:
    record = context.state.instances.get(arn.name)
    return record if record is not None and arn.cluster in (record.cluster, None) else None


def _capacity_provider(context: Context, reference: str, _: ParsedArn) -> _Tagged | None:
    record = find_provider(context, reference)
    if record is not None and record.name in FARGATE_PROVIDERS:
        raise InvalidParameterException(f"The capacity provider {record.name} is reserved and can't be tagged.")
    return record


def _service(context: Context, reference: str, arn: ParsedArn) -> _Tagged | None:
    record = find_service(context, arn.cluster or DEFAULT_CLUSTER, reference)
    if record is not None and record.status == "INACTIVE":
        raise InvalidParameterException("The specified service is inactive. Specify an active service and try again.")
    return record


def _task_set(context: Context, _: str, arn: ParsedArn) -> _Tagged | None:
    cluster, _, rest = arn.path.partition("/")
    service, _, task_set_id = rest.partition("/")
    record = context.state.task_sets.get(task_set_id)
    return record if record is not None and record.service == f"{cluster}/{service}" else None


#: Resource type of the ARN -> how to find it.
_FINDERS: Final[dict[str, Callable[[Context, str, ParsedArn], _Tagged | None]]] = {
    "capacity-provider": _capacity_provider,
    "cluster": _cluster,
    "task-definition": _task_definition,
    "task": _task,
    "container-instance": _container_instance,
    "service": _service,
    "task-set": _task_set,
}
