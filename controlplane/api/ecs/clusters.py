"""Clusters: CreateCluster, DescribeClusters, ListClusters, UpdateCluster and its kin, DeleteCluster.

A cluster is a name for a set of hosts and tasks. Its counters are read off indexes at the moment of asking, so they are
always true. A deleted cluster stays describable, INACTIVE, as in ECS.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from controlplane.api import pagination
from controlplane.api.arguments import check_list_size, render_tags, tags_of
from controlplane.api.ecs.capacity import FARGATE_PROVIDERS
from controlplane.api.ecs.capacity_providers import checked_providers
from controlplane.api.ecs.lookup import DEFAULT_CLUSTER, cluster_name, find_cluster
from controlplane.api.ecs.service_views import service_launch_type
from controlplane.api.ecs.settings import account_setting
from controlplane.api.errors import (
    ApiError,
    ClusterContainsContainerInstancesException,
    ClusterContainsServicesException,
    ClusterContainsTasksException,
    InvalidParameterException,
)
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.state.records import ClusterRecord

__all__ = ["check_capacity_provider_strategy", "ensure_default_cluster", "render_cluster"]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,255}")

#: A cluster has this one setting in ECS; the account setting of the same name gives its default.
_SETTING: Final = "containerInsights"
_SETTING_VALUES: Final = ("enabled", "disabled", "enhanced")

_MAX_STRATEGY_ITEMS: Final = 20

#: As DescribeClusters' `include` spells them.
_EVERYTHING: Final = frozenset({"ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"})

#: launchType -> how ECS spells it inside names of statistics.
_LAUNCH_TYPES: Final = {"EC2": "EC2", "FARGATE": "Fargate", "EXTERNAL": "External"}


def ensure_default_cluster(context: Context) -> None:
    """Make the `default` cluster if there has never been one. Once deleted, it comes back by CreateCluster only."""
    if DEFAULT_CLUSTER not in context.state.clusters:
        with context.state.transaction() as transaction:
            transaction.put(_new(context, DEFAULT_CLUSTER))


@operation("ecs", "CreateCluster")
def create_cluster(context: Context, request: Document) -> Document:
    """Make a cluster. Of an ACTIVE cluster's name: return that cluster, unchanged."""
    name = request.get("clusterName") or DEFAULT_CLUSTER
    if not _NAME.fullmatch(name):
        raise InvalidParameterException(
            "Identifiers can contain only letters, numbers, hyphens and underscores, 255 at most;"
            f" clusterName is '{name:.300}'."
        )
    providers = checked_providers(context, request.get("capacityProviders", []))
    strategy = request.get("defaultCapacityProviderStrategy", [])
    check_capacity_provider_strategy(strategy, providers)
    record = msgspec.structs.replace(
        _new(context, name),
        settings={_SETTING: account_setting(context, _SETTING), **_checked_settings(request)},
        configuration=request.get("configuration"),
        service_connect_defaults=_service_connect_defaults(request),
        capacity_providers=providers,
        default_capacity_provider_strategy=tuple(strategy),
        tags=tags_of(request),
    )
    existing = context.state.clusters.get(name)
    if existing is not None and existing.status == "ACTIVE":
        return {"cluster": render_cluster(context, existing)}
    with context.state.transaction() as transaction:
        transaction.put(record)
    return {"cluster": render_cluster(context, record)}


@operation("ecs", "DescribeClusters")
def describe_clusters(context: Context, request: Document) -> Document:
    """Describe clusters by name or ARN, the default one if none is named. The missing ones are in `failures`."""
    check_list_size(request, "clusters", 100)
    include = frozenset(request.get("include", ()))
    found: list[Document] = []
    failures: list[Document] = []
    for reference in request.get("clusters") or [DEFAULT_CLUSTER]:
        name = cluster_name(context, reference)
        record = None if name is None else context.state.clusters.get(name)
        if record is not None:
            found.append(render_cluster(context, record, include))
        else:
            arn = reference if name is None else context.arns.cluster(name)
            failures.append({"arn": arn, "reason": "MISSING"})
    return {"clusters": found, "failures": failures}


@operation("ecs", "ListClusters")
def list_clusters(context: Context, request: Document) -> Document:
    """List the ARNs of the ACTIVE clusters, by name."""
    after = pagination.after(request)
    records = (r for r in context.state.clusters.page(None, None, after=after) if r.status == "ACTIVE")
    page = pagination.take(records, request, key=lambda record: record.key)
    return {"clusterArns": [context.arns.cluster(record.name) for record in page.items], **page.more}


@operation("ecs", "UpdateCluster")
def update_cluster(context: Context, request: Document) -> Document:
    """Change a cluster's settings, configuration and Service Connect defaults; what isn't given stays."""
    record = find_cluster(context, request["cluster"])
    changed = msgspec.structs.replace(record, settings={**record.settings, **_checked_settings(request)})
    if "configuration" in request:
        changed = msgspec.structs.replace(changed, configuration=request["configuration"])
    if "serviceConnectDefaults" in request:
        changed = msgspec.structs.replace(changed, service_connect_defaults=_service_connect_defaults(request))
    return _stored(context, changed)


@operation("ecs", "UpdateClusterSettings")
def update_cluster_settings(context: Context, request: Document) -> Document:
    """Change a cluster's settings."""
    record = find_cluster(context, request["cluster"])
    return _stored(context, msgspec.structs.replace(record, settings={**record.settings, **_checked_settings(request)}))


@operation("ecs", "PutClusterCapacityProviders")
def put_cluster_capacity_providers(context: Context, request: Document) -> Document:
    """Replace a cluster's capacity providers and default strategy."""
    record = find_cluster(context, request["cluster"])
    providers = checked_providers(context, request["capacityProviders"])
    strategy = request["defaultCapacityProviderStrategy"]
    check_capacity_provider_strategy(strategy, providers)
    _check_unused(context, record, frozenset(record.capacity_providers) - frozenset(providers))
    return _stored(
        context,
        msgspec.structs.replace(
            record, capacity_providers=providers, default_capacity_provider_strategy=tuple(strategy)
        ),
    )


@operation("ecs", "DeleteCluster")
def delete_cluster(context: Context, request: Document) -> Document:
    """Make a cluster INACTIVE. Refused while it has services, registered container instances or tasks."""
    record = find_cluster(context, request["cluster"])
    services, count = context.state.services.count, context.state.instances.count
    if any(services("cluster_status", (record.name, status)) for status in ("ACTIVE", "DRAINING")):
        raise ClusterContainsServicesException("The Cluster cannot be deleted while Services are active.")
    if any(count("cluster_status", (record.name, status)) for status in ("ACTIVE", "DRAINING")):
        raise ClusterContainsContainerInstancesException(
            "The Cluster cannot be deleted while Container Instances are active or draining."
        )
    if any(context.state.tasks.count("cluster_phase", (record.name, phase)) for phase in ("pending", "running")):
        raise ClusterContainsTasksException("The Cluster cannot be deleted while Tasks are active.")
    return _stored(context, msgspec.structs.replace(record, status="INACTIVE"))


def render_cluster(context: Context, record: ClusterRecord, include: Iterable[str] = _EVERYTHING) -> Document:
    """Return a cluster in ECS's shape. What isn't included is an empty list, or left out where it is no list."""
    include = frozenset(include)
    tasks = context.state.tasks
    document: dict[str, Any] = {
        "clusterArn": context.arns.cluster(record.name),
        "clusterName": record.name,
        "status": record.status,
        "registeredContainerInstancesCount": sum(
            context.state.instances.count("cluster_status", (record.name, status)) for status in ("ACTIVE", "DRAINING")
        ),
        "runningTasksCount": tasks.count("cluster_phase", (record.name, "running")),
        "pendingTasksCount": tasks.count("cluster_phase", (record.name, "pending")),
        "activeServicesCount": context.state.services.count("cluster_status", (record.name, "ACTIVE")),
        "statistics": _statistics(context, record) if "STATISTICS" in include else [],
        "tags": render_tags(record.tags) if "TAGS" in include else [],
        "settings": _render_settings(record) if "SETTINGS" in include else [],
        "capacityProviders": list(record.capacity_providers),
        "defaultCapacityProviderStrategy": list(record.default_capacity_provider_strategy),
    }
    if "CONFIGURATIONS" in include and record.configuration is not None:
        document["configuration"] = record.configuration
    if record.service_connect_defaults is not None:
        document["serviceConnectDefaults"] = record.service_connect_defaults
    return document


def check_capacity_provider_strategy(strategy: Sequence[Mapping[str, Any]], associated: Iterable[str]) -> None:
    """Raise InvalidParameterException unless a strategy names only associated providers, under ECS's limits."""
    if len(strategy) > _MAX_STRATEGY_ITEMS:
        raise InvalidParameterException(
            f"A capacity provider strategy can contain a maximum of {_MAX_STRATEGY_ITEMS} capacity providers."
        )
    known = frozenset(associated)
    if any(item["capacityProvider"] not in known for item in strategy):
        raise InvalidParameterException(
            "The specified capacity provider strategy cannot contain a capacity provider that is not associated with"
            " the cluster. Associate the capacity provider with the cluster and try again."
        )
    if len({item["capacityProvider"] in FARGATE_PROVIDERS for item in strategy}) > 1:
        raise InvalidParameterException(
            "A capacity provider strategy can contain either FARGATE and FARGATE_SPOT or other capacity providers, but"
            " not both."
        )
    if sum(item.get("base", 0) > 0 for item in strategy) > 1:
        raise InvalidParameterException("Only one capacity provider in a strategy can have a base above 0.")


def _new(context: Context, name: str) -> ClusterRecord:
    return ClusterRecord(
        name=name, created_at=context.clock.now(), settings={_SETTING: account_setting(context, _SETTING)}
    )


def _stored(context: Context, record: ClusterRecord) -> Document:
    with context.state.transaction() as transaction:
        transaction.put(record)
    return {"cluster": render_cluster(context, record)}


def _check_unused(context: Context, record: ClusterRecord, removed: frozenset[str]) -> None:
    """Raise ResourceInUseException if a service of the cluster still uses a provider that it is to lose."""
    state = context.state
    for service in state.services.where("cluster", record.name) if removed else ():
        live = (state.deployments.get(deployment) for deployment in service.deployments)
        revisions = (state.revisions.get(deployment.revision) for deployment in live if deployment is not None)
        for revision in revisions:
            strategy = revision.document.get("capacityProviderStrategy") if revision is not None else None
            if used := removed.intersection(item["capacityProvider"] for item in strategy or ()):
                raise ApiError(
                    "The specified capacity provider is in use and cannot be removed: service"
                    f" {service.name} uses {', '.join(sorted(used))}.",
                    code="ResourceInUseException",
                )


def _checked_settings(request: Document) -> dict[str, str]:
    settings: dict[str, str] = {}
    for setting in request.get("settings", ()):
        name, value = setting.get("name"), setting.get("value")
        if name is None or value not in _SETTING_VALUES:
            raise InvalidParameterException(
                f"settings: the value of {_SETTING} must be one of {', '.join(_SETTING_VALUES)}."
            )
        settings[name] = value
    return settings


def _service_connect_defaults(request: Document) -> Document | None:
    """An empty namespace takes the default away, as in ECS."""
    defaults: Document | None = request.get("serviceConnectDefaults")
    return defaults if defaults and defaults["namespace"] else None


def _render_settings(record: ClusterRecord) -> list[Document]:
    return [{"name": name, "value": value} for name, value in record.settings.items()]


def _statistics(context: Context, record: ClusterRecord) -> list[Document]:
    """ECS's statistics, in its order."""
    values: dict[str, int] = {}
    for phase in ("running", "pending"):
        for launch_type, spelling in _LAUNCH_TYPES.items():
            values[f"{phase}{spelling}TasksCount"] = context.state.tasks.count(
                "cluster_phase_launch_type", (record.name, phase, launch_type)
            )
    for phase in ("active", "draining"):
        services = context.state.services.where("cluster_status", (record.name, phase.upper()))
        counts = Counter(service_launch_type(context, service) for service in services)
        for launch_type, spelling in _LAUNCH_TYPES.items():
            values[f"{phase}{spelling}ServiceCount"] = counts[launch_type]
    return [{"name": name, "value": str(value)} for name, value in values.items()]
