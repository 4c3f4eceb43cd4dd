"""Attributes: name-value pairs of container instances that placement can ask for.

The agent's own attributes (`ecs.*` and those of its configuration) are listed with those put here; what is put wins
over the agent's value, and deleting it brings the agent's back.
"""

import re
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from controlplane.api import pagination
from controlplane.api.arguments import check_list_size
from controlplane.api.ecs.lookup import find_cluster, local_path
from controlplane.api.ecs.residents import find_instance
from controlplane.api.errors import ApiError, InvalidParameterException, TargetNotFoundException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.state.records import InstanceRecord

__all__: list[str] = []

_NAME: Final = re.compile(r"[A-Za-z0-9\-_/\\.]{1,128}")
_VALUE: Final = re.compile(r"(?! )[A-Za-z0-9\-_.@/\\: ]{1,128}(?<! )")
_RESERVED: Final = "ecs."
_MAX_PER_CALL: Final = 10
#: Custom attributes that one host can have.
_MAX_PER_TARGET: Final = 10
_TARGET_TYPE: Final = "container-instance"


@operation("ecs", "PutAttributes")
def put_attributes(context: Context, request: Document) -> Document:
    """Add or replace up to 10 attributes, all or none."""
    cluster = find_cluster(context, request.get("cluster")).name
    check_list_size(request, "attributes", _MAX_PER_CALL)
    with context.state.transaction() as transaction:
        for attribute in request["attributes"]:
            name, value = _checked(attribute)
            instance = _target(context, cluster, attribute)
            attributes = {**instance.attributes, name: value}
            if len(attributes) > _MAX_PER_TARGET:
                raise ApiError(
                    f"A container instance can have at most {_MAX_PER_TARGET} custom attributes.",
                    code="AttributeLimitExceededException",
                )
            if attributes != instance.attributes:
                transaction.put(replace(instance, attributes=attributes, version=instance.version + 1))
    return {"attributes": [_echo(attribute) for attribute in request["attributes"]]}


@operation("ecs", "DeleteAttributes")
def delete_attributes(context: Context, request: Document) -> Document:
    """Delete up to 10 attributes that PutAttributes made; those that aren't there are passed over."""
    cluster = find_cluster(context, request.get("cluster")).name
    check_list_size(request, "attributes", _MAX_PER_CALL)
    deleted = []
    with context.state.transaction() as transaction:
        for attribute in request["attributes"]:
            name, value = _checked(attribute)
            instance = _target(context, cluster, attribute)
            if name not in instance.attributes or (value and instance.attributes[name] != value):
                continue
            attributes = {key: kept for key, kept in instance.attributes.items() if key != name}
            transaction.put(replace(instance, attributes=attributes, version=instance.version + 1))
            deleted.append(_echo(attribute))
    return {"attributes": deleted}


@operation("ecs", "ListAttributes")
def list_attributes(context: Context, request: Document) -> Document:
    """List the attributes of a cluster's hosts, one entry for each host and attribute."""
    cluster = find_cluster(context, request.get("cluster")).name
    name, value = request.get("attributeName"), request.get("attributeValue")
    if value and not name:
        raise InvalidParameterException("attributeValue can only be given together with attributeName.")
    after = pagination.after(request)
    host, _, last = (after or "").partition("\n")
    entries = (
        (instance, key, found)
        for instance in _from(context, cluster, host or None)
        for key, found in sorted(instance.all_attributes.items())
        if (name is None or key == name) and (value is None or found == value)
        if instance.id != host or key > last
    )
    page = pagination.take(entries, request, key=lambda entry: f"{entry[0].id}\n{entry[1]}")
    listed = [
        {
            "name": key,
            "targetId": context.arns.container_instance(cluster, instance.id),
            **({"value": found} if found else {}),
        }
        for instance, key, found in page.items
    ]
    return {"attributes": listed, **page.more}


def _from(context: Context, cluster: str, host: str | None) -> Iterator[InstanceRecord]:
    """The cluster's hosts from `host` on, itself included: a page can end within its attributes."""
    if host is not None:
        first = context.state.instances.get(host)
        if first is not None and first.cluster == cluster and first.status != "INACTIVE":
            yield first
    for instance in context.state.instances.page("cluster", cluster, after=host):
        if instance.status != "INACTIVE":
            yield instance


def _checked(attribute: Document) -> tuple[str, str]:
    name, value = attribute["name"], attribute.get("value") or ""
    if not _NAME.fullmatch(name):
        raise InvalidParameterException(
            f"The attribute name '{name:.150}' isn't valid: 1 to 128 letters, numbers, hyphens, underscores, slashes, "
            "backslashes or periods."
        )
    if name.startswith(_RESERVED):
        raise InvalidParameterException(f"The attribute name '{name}' isn't valid: '{_RESERVED}' is reserved.")
    if value and not _VALUE.fullmatch(value):
        raise InvalidParameterException(
            f"The value of attribute '{name}' isn't valid: 1 to 128 letters, numbers, hyphens, underscores, periods, "
            "at signs, slashes, backslashes, colons or spaces, not at its ends."
        )
    return name, value


def _target(context: Context, cluster: str, attribute: Document) -> InstanceRecord:
    target = attribute.get("targetId") or ""
    if not target:
        raise InvalidParameterException("Each attribute needs a targetId: the ID or ARN of a container instance.")
    if not target.startswith("arn:") and attribute.get("targetType") != _TARGET_TYPE:
        raise InvalidParameterException(f"targetType must be {_TARGET_TYPE} when targetId isn't an ARN.")
    if target.startswith("arn:") and local_path(context, target, _TARGET_TYPE) is None:
        raise InvalidParameterException(f"targetId '{target}' isn't the ARN of a container instance.")
    instance = find_instance(context, cluster, target)
    if instance is None or instance.status == "INACTIVE":
        raise TargetNotFoundException(f"The target '{target}' was not found in cluster {cluster}.")
    return instance


def _echo(attribute: Document) -> Document:
    return {member: value for member, value in attribute.items() if value not in (None, "")}
