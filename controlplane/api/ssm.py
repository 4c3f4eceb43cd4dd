"""SSM activations, by which hosts join: CreateActivation, DescribeActivations, DeleteActivation.

ECS Anywhere makes a host known with an SSM activation, so the commands people know work here. ECS has no parameter for
the cluster; the tag `homeport:cluster` chooses it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from controlplane.api import pagination
from controlplane.api.arguments import MAX_TAGS
from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.errors import ApiError, ClusterNotFoundException, InvalidParameterException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.fleet.activations import new_activation
from controlplane.state.records import ActivationRecord

__all__ = ["CLUSTER_TAG", "DEFAULT_LIFETIME_S", "MAX_LIFETIME_S"]

#: Chooses the cluster that an activation's hosts join.
CLUSTER_TAG: Final = "homeport:cluster"

#: SSM's own: an activation lives 24 hours unless told otherwise, and 30 days at most.
DEFAULT_LIFETIME_S: Final = 24 * 3600
MAX_LIFETIME_S: Final = 30 * 24 * 3600

_DEFAULT_PAGE: Final = 50

_FILTERS: Final[dict[str, Callable[[ActivationRecord], str]]] = {
    "ActivationIds": lambda record: record.id,
    "DefaultInstanceName": lambda record: record.default_instance_name,
    "IamRole": lambda record: record.iam_role,
}


@operation("ssm", "CreateActivation")
def create_activation(context: Context, request: Document) -> Document:
    """Make an activation; its code is shown in this answer only."""
    tags = _tags(request)
    record, code = new_activation(
        context,
        description=request.get("Description", ""),
        default_instance_name=request.get("DefaultInstanceName", ""),
        iam_role=request["IamRole"],
        registration_limit=request.get("RegistrationLimit", 1),
        expires_at=_expiry(context, request),
        tags=tags,
        cluster=_cluster(context, tags),
    )
    return {"ActivationId": record.id, "ActivationCode": code}


@operation("ssm", "DescribeActivations")
def describe_activations(context: Context, request: Document) -> Document:
    """List activations by id, those that expired included; their codes are not known."""
    wanted = []
    for document in request.get("Filters", ()):
        values = frozenset(document.get("FilterValues", ()))
        if "FilterKey" not in document or not values:
            raise ApiError("Filters: each needs a FilterKey and FilterValues.", code="InvalidFilter")
        wanted.append((_FILTERS[document["FilterKey"]], values))
    try:
        after = pagination.after(request, token_member="NextToken")  # noqa: S106 - no password
    except InvalidParameterException as error:
        raise ApiError(error.message, code="InvalidNextToken") from error
    records = (
        record
        for record in context.state.activations.page(None, None, after=after)
        if all(value_of(record) in values for value_of, values in wanted)
    )
    page = pagination.take(
        records, {"maxResults": request.get("MaxResults", _DEFAULT_PAGE)}, key=lambda record: record.key
    )
    more = {"NextToken": page.more["nextToken"]} if page.more else {}
    return {"ActivationList": [_render(context, record) for record in page.items], **more}


@operation("ssm", "DeleteActivation")
def delete_activation(context: Context, request: Document) -> Document:
    """Delete an activation. Hosts that registered with it stay."""
    record = context.state.activations.get(request["ActivationId"])
    if record is None:
        raise ApiError(f"There is no activation {request['ActivationId']}.", code="InvalidActivation")
    with context.state.transaction() as transaction:
        transaction.delete(record)
    return {}


def _render(context: Context, record: ActivationRecord) -> Document:
    document: Document = {
        "ActivationId": record.id,
        "IamRole": record.iam_role,
        "RegistrationLimit": record.registration_limit,
        "RegistrationsCount": record.registrations,
        "ExpirationDate": record.expires_at,
        "Expired": record.expires_at <= context.clock.now(),
        "CreatedDate": record.created_at,
        "Tags": [{"Key": key, "Value": value} for key, value in record.tags.items()],
    }
    if record.description:
        document["Description"] = record.description
    if record.default_instance_name:
        document["DefaultInstanceName"] = record.default_instance_name
    return document


def _expiry(context: Context, request: Document) -> float:
    now = context.clock.now()
    expires_at: float = request.get("ExpirationDate", now + DEFAULT_LIFETIME_S)
    if not now < expires_at <= now + MAX_LIFETIME_S:
        given, latest = (datetime.fromtimestamp(at, UTC).isoformat() for at in (expires_at, now + MAX_LIFETIME_S))
        raise ApiError(
            f"ExpirationDate must be in the future and at most 30 days away ({latest}), but is {given}.",
            code="ValidationException",
        )
    return expires_at


def _tags(request: Document) -> dict[str, str]:
    tags: dict[str, str] = {}
    for tag in request.get("Tags", ()):
        if tag["Key"].lower().startswith("aws:"):
            raise ApiError(
                f"Tags: keys that begin with 'aws:' are reserved: '{tag['Key']}'.", code="ValidationException"
            )
        tags[tag["Key"]] = tag["Value"]
    if len(tags) > MAX_TAGS:
        raise ApiError(f"Tags: at most {MAX_TAGS} tags can be given.", code="ValidationException")
    return tags


def _cluster(context: Context, tags: dict[str, str]) -> str:
    """Return the name of the cluster that the tag names; "" without the tag."""
    reference = tags.get(CLUSTER_TAG)
    if not reference:
        return ""
    try:
        return find_cluster(context, reference).name
    except ClusterNotFoundException as error:
        raise ApiError(
            f"Tags: {CLUSTER_TAG} names the cluster '{reference}', which doesn't exist.", code="ValidationException"
        ) from error
