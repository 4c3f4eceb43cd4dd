"""Capacity providers: names for groups of hosts.

    FARGATE         any host
    FARGATE_SPOT    the hosts with the attribute homeport.preemptible=true
    any other       the hosts whose attribute homeport.capacity-provider is its name; or, if the provider has the tag
                    homeport:hosts, those that this expression of the cluster query language selects

A provider is made for an Auto Scaling group in ECS. Here its ARN is only a name that is kept and shown; nothing scales.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from controlplane.api import pagination
from controlplane.api.arguments import check_list_size, render_tags, tags_of
from controlplane.api.ecs.capacity import FARGATE_PROVIDERS
from controlplane.api.ecs.lookup import find_cluster, local_path
from controlplane.api.ecs.placement import check_expression
from controlplane.api.errors import ClientException, InvalidParameterException, UnsupportedFeatureException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.scheduling.model import Constraint
from controlplane.state.records import ClusterRecord, Tags
from controlplane.state.service_records import CapacityProviderRecord
from controlplane.state.state import State

__all__ = [
    "HOSTS_TAG",
    "PREEMPTIBLE",
    "PROVIDER_ATTRIBUTE",
    "check_provider_tags",
    "checked_providers",
    "find_provider",
    "provider_constraints",
]

#: Tag of a capacity provider: an expression that selects its hosts.
HOSTS_TAG: Final = "homeport:hosts"
#: Attributes of hosts.
PROVIDER_ATTRIBUTE: Final = "homeport.capacity-provider"
PREEMPTIBLE: Final = "homeport.preemptible"

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,255}")
_RESERVED: Final = ("aws", "ecs", "fargate")
_MAX_DESCRIBED: Final = 100
#: Items in one page of DescribeCapacityProviders, as in ECS.
_MAX_PAGE: Final = 10
#: Providers that a cluster can have: ECS's quota.
_MAX_PER_CLUSTER: Final = 20

#: What ECS fills in.
_SCALING: Final[Mapping[str, Any]] = {
    "status": "DISABLED",
    "targetCapacity": 100,
    "minimumScalingStepSize": 1,
    "maximumScalingStepSize": 10000,
    "instanceWarmupPeriod": 300,
}
_GROUP: Final[Mapping[str, Any]] = {"managedTerminationProtection": "DISABLED", "managedDraining": "DISABLED"}

_NOT_FOUND: Final = "The specified capacity provider was not found. Specify a valid name or ARN and try again."


# ---------------------------------------------------------------- what a provider means


def provider_constraints(state: State, provider: str) -> tuple[Constraint, ...]:
    """Return what a capacity provider asks of a host: nothing, or that the host is one of its own."""
    if provider in ("", "FARGATE"):
        return ()
    if provider == "FARGATE_SPOT":
        return (Constraint("memberOf", f"attribute:{PREEMPTIBLE} == true", provider),)
    record = state.capacity_providers.get(provider)
    expression = record.tags.get(HOSTS_TAG, "") if record is not None else ""
    return (Constraint("memberOf", expression or f"attribute:{PROVIDER_ATTRIBUTE} == {provider}", provider),)


def find_provider(context: Context, reference: str) -> CapacityProviderRecord | None:
    """Return the provider of that name or ARN; None if there is none. FARGATE and FARGATE_SPOT are always there."""
    name = local_path(context, reference, "capacity-provider") if reference.startswith("arn:") else reference
    if name is None:
        return None
    if name in FARGATE_PROVIDERS:
        return CapacityProviderRecord(name=name, created_at=0.0)
    return context.state.capacity_providers.get(name)


def checked_providers(context: Context, references: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the providers that a cluster is to have.

    Raises InvalidParameterException for one that there isn't, and for more than ECS allows.
    """
    names = []
    for reference in references:
        record = find_provider(context, reference)
        if record is None:
            raise InvalidParameterException(f"{_NOT_FOUND} Not found: '{reference:.300}'.")
        names.append(record.name)
    found = tuple(dict.fromkeys(names))
    if len(found) > _MAX_PER_CLUSTER:
        raise InvalidParameterException(
            f"capacityProviders: a cluster can have at most {_MAX_PER_CLUSTER}, but {len(found)} were given."
        )
    return found


def check_provider_tags(tags: Tags) -> None:
    """Raise InvalidParameterException if the tag homeport:hosts has no usable expression."""
    if HOSTS_TAG in tags:
        check_expression(tags[HOSTS_TAG])


# ---------------------------------------------------------------- operations


@operation("ecs", "CreateCapacityProvider")
def create_capacity_provider(context: Context, request: Document) -> Document:
    """Make a capacity provider, a name for a group of hosts: see the tag homeport:hosts.

    The ARN of its Auto Scaling group is kept and shown, and has no other meaning.
    """
    name = request["name"]
    if not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
        raise InvalidParameterException(
            "The specified capacity provider name is invalid. Up to 255 letters, numbers, underscores and hyphens are"
            f" allowed, and it can't begin with 'aws', 'ecs' or 'fargate'; name is '{name:.300}'."
        )
    group = _group(request, {})
    tags = tags_of(request)
    check_provider_tags(tags)
    if name in context.state.capacity_providers:
        raise ClientException(
            "The specified capacity provider already exists. To change the configuration of an existing capacity"
            " provider, update the capacity provider."
        )
    record = CapacityProviderRecord(
        name=name, created_at=context.clock.now(), document={"autoScalingGroupProvider": group}, tags=tags
    )
    return _stored(context, record)


@operation("ecs", "DescribeCapacityProviders")
def describe_capacity_providers(context: Context, request: Document) -> Document:
    """Describe capacity providers by name or ARN, else page by page; `cluster`: only those associated with it."""
    check_list_size(request, "capacityProviders", _MAX_DESCRIBED)
    cluster = find_cluster(context, request["cluster"]) if request.get("cluster") else None
    tags = "TAGS" in request.get("include", ())
    if references := request.get("capacityProviders"):
        found, failures = [], []
        for reference in dict.fromkeys(references):
            record = find_provider(context, reference)
            if record is None or not _is_of(cluster, record.name):
                arn = reference if reference.startswith("arn:") else context.arns.capacity_provider(reference)
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                found.append(_view(context, record, tags=tags))
        return {"capacityProviders": found, "failures": failures}
    after = pagination.after(request)
    names = sorted((*FARGATE_PROVIDERS, *(record.name for record in context.state.capacity_providers)))
    listed = (name for name in names if (after is None or name > after) and _is_of(cluster, name))
    page = pagination.take(listed, request, key=str, maximum=_MAX_PAGE)
    records = (find_provider(context, name) for name in page.items)
    views = [_view(context, record, tags=tags) for record in records if record is not None]
    return {"capacityProviders": views, "failures": [], **page.more}


@operation("ecs", "UpdateCapacityProvider")
def update_capacity_provider(context: Context, request: Document) -> Document:
    """Change what is shown of a capacity provider's Auto Scaling group. Its hosts are changed by tag and attribute."""
    record = _own(context, request["name"])
    group = _group(request, record.document.get("autoScalingGroupProvider") or {})
    changed = replace(
        record,
        document={**record.document, "autoScalingGroupProvider": group},
        update_status="UPDATE_COMPLETE",
        update_status_reason="",
    )
    return _stored(context, changed)


@operation("ecs", "DeleteCapacityProvider")
def delete_capacity_provider(context: Context, request: Document) -> Document:
    """Delete a capacity provider. While a cluster has it, it stays, DELETE_FAILED with the reason, as in ECS."""
    record = _own(context, request["capacityProvider"])
    clusters = [c.name for c in context.state.clusters if c.status == "ACTIVE" and record.name in c.capacity_providers]
    if clusters:
        reason = (
            "The capacity provider cannot be deleted because it is associated with cluster:"
            f" {', '.join(clusters[:5])}. Remove the capacity provider from the cluster and try again."
        )
        return _stored(context, replace(record, update_status="DELETE_FAILED", update_status_reason=reason))
    with context.state.transaction() as transaction:
        transaction.delete(record)
    gone = replace(record, status="INACTIVE", update_status="DELETE_COMPLETE", update_status_reason="")
    return {"capacityProvider": _view(context, gone, tags=True)}


def _own(context: Context, reference: str) -> CapacityProviderRecord:
    record = find_provider(context, reference)
    if record is None:
        raise ClientException(_NOT_FOUND)
    if record.name in FARGATE_PROVIDERS:
        raise ClientException(
            f"The capacity provider {record.name} is reserved: it is there for every cluster and can't be changed."
        )
    return record


def _group(request: Document, before: Document) -> Document:
    """Return the autoScalingGroupProvider with ECS's defaults, on top of what it was before."""
    if request.get("managedInstancesProvider"):
        raise UnsupportedFeatureException(
            "managedInstancesProvider isn't supported: Homeport runs on machines that join by themselves."
        )
    given = request.get("autoScalingGroupProvider")
    if not given:
        raise InvalidParameterException(
            "autoScalingGroupProvider must be given. Homeport keeps and shows its autoScalingGroupArn, any text; the"
            f" hosts are those with the attribute {PROVIDER_ATTRIBUTE}, or those of the tag {HOSTS_TAG}."
        )
    scaling = {**_SCALING, **before.get("managedScaling", {}), **(given.get("managedScaling") or {})}
    return {**_GROUP, **before, **given, "managedScaling": scaling}


def _is_of(cluster: ClusterRecord | None, name: str) -> bool:
    return cluster is None or name in cluster.capacity_providers


def _stored(context: Context, record: CapacityProviderRecord) -> Document:
    with context.state.transaction() as transaction:
        transaction.put(record)
    return {"capacityProvider": _view(context, record, tags=True)}


def _view(context: Context, record: CapacityProviderRecord, *, tags: bool) -> Document:
    fargate = record.name in FARGATE_PROVIDERS
    view = {
        "capacityProviderArn": context.arns.capacity_provider(record.name),
        "name": record.name,
        "status": record.status,
        "type": record.name if fargate else "EC2_AUTOSCALING",
        "tags": render_tags(record.tags) if tags else [],
        **record.document,
    }
    if record.update_status:
        view["updateStatus"] = record.update_status
    if record.update_status_reason:
        view["updateStatusReason"] = record.update_status_reason
    return view
