"""Container instances, ECS's word for hosts: describe, list, drain, deregister.

Hosts register and report through their agents (`controlplane.fleet`), not through the calls of Amazon's agent. A
DRAINING host gets no new tasks; standalone tasks on it stay, as in ECS, services move theirs. A deregistered one stays
describable, INACTIVE, for a while.
"""

from typing import Final

from msgspec.structs import replace

from controlplane.api import pagination
from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.ecs.placement import check_expression
from controlplane.api.ecs.residents import check_references, find_instance, instance_arn
from controlplane.api.ecs.views import failure, instance_view
from controlplane.api.errors import InvalidParameterException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.fleet.departure import give_up_tasks
from controlplane.scheduling.language import parse_query
from controlplane.scheduling.model import candidate_of
from homeport.reasons import DEREGISTERED_BY_FORCE

__all__: list[str] = []

_MAX_DESCRIBED: Final = 100
_MAX_UPDATED: Final = 10
_NOT_FOUND: Final = "The referenced container instance was not found."


@operation("ecs", "DescribeContainerInstances")
def describe_container_instances(context: Context, request: Document) -> Document:
    """Describe up to 100 hosts, deregistered ones included while they are remembered."""
    cluster = find_cluster(context, request.get("cluster")).name
    include = request.get("include", ())
    found, failures = [], []
    for reference in check_references(request["containerInstances"], what="Container instance", maximum=_MAX_DESCRIBED):
        instance = find_instance(context, cluster, reference)
        if instance is None:
            failures.append(failure(instance_arn(context, cluster, reference), "MISSING"))
        else:
            view = instance_view(
                context, instance, tags="TAGS" in include, health="CONTAINER_INSTANCE_HEALTH" in include
            )
            found.append(view)
    return {"containerInstances": found, "failures": failures}


@operation("ecs", "ListContainerInstances")
def list_container_instances(context: Context, request: Document) -> Document:
    """List the ARNs of a cluster's hosts, by status (default: all but INACTIVE) and cluster query."""
    cluster = find_cluster(context, request.get("cluster")).name
    expression = request.get("filter") or ""
    if expression:
        check_expression(expression)
    query = parse_query(expression) if expression else None
    after = pagination.after(request)
    if status := request.get("status"):
        records = context.state.instances.page("cluster_status", (cluster, status), after=after)
    else:
        records = context.state.instances.page("cluster", cluster, after=after)
    wanted = (
        instance
        for instance in records
        if (status or instance.status != "INACTIVE")
        and (query is None or query.matches(candidate_of(context.state, instance)))
    )
    page = pagination.take(wanted, request, key=lambda instance: instance.key)
    arns = [context.arns.container_instance(cluster, instance.id) for instance in page.items]
    return {"containerInstanceArns": arns, **page.more}


@operation("ecs", "UpdateContainerInstancesState")
def update_container_instances_state(context: Context, request: Document) -> Document:
    """Set up to 10 hosts DRAINING (no new tasks), or ACTIVE again. One that is so already stays untouched."""
    cluster = find_cluster(context, request.get("cluster")).name
    status = request["status"]
    if status not in ("ACTIVE", "DRAINING"):
        raise InvalidParameterException("Container instances status must be one of [ACTIVE, DRAINING].")
    references = check_references(request["containerInstances"], what="Container instance", maximum=_MAX_UPDATED)
    updated, failures = [], []
    with context.state.transaction() as transaction:
        for reference in references:
            instance = find_instance(context, cluster, reference)
            if instance is None:
                failures.append(failure(instance_arn(context, cluster, reference), "MISSING"))
            elif instance.status == "INACTIVE":
                failures.append(failure(instance_arn(context, cluster, reference), "INACTIVE"))
            else:
                if instance.status != status:
                    # ECS's call knows no deadline; `DrainNode` does.
                    instance = replace(
                        instance,
                        status=status,
                        draining_at=context.clock.now() if status == "DRAINING" else None,
                        drain_deadline_at=None,
                        version=instance.version + 1,
                    )
                    transaction.put(instance)
                updated.append(instance)
    return {
        "containerInstances": [instance_view(context, instance, tags=True) for instance in updated],
        "failures": failures,
    }


@operation("ecs", "DeregisterContainerInstance")
def deregister_container_instance(context: Context, request: Document) -> Document:
    """Take a host out of its cluster. While tasks run there only with force, which gives them up as STOPPED."""
    cluster = find_cluster(context, request.get("cluster")).name
    instance = find_instance(context, cluster, request["containerInstance"])
    if instance is None or instance.status == "INACTIVE":
        raise InvalidParameterException(_NOT_FOUND)
    tasks = context.state.load.of(instance.id).tasks
    if tasks and not request.get("force"):
        raise InvalidParameterException("Found running tasks on the instance.")
    with context.state.transaction() as transaction:
        give_up_tasks(context, instance, DEREGISTERED_BY_FORCE)
        gone = replace(instance, status="INACTIVE", deregistered_at=context.clock.now(), version=instance.version + 1)
        transaction.put(gone)
    return {"containerInstance": instance_view(context, gone, tags=True)}
