"""Homeport's own operations on services, beside those of `homeport_service`.

FindServices          services with counts and state, of all clusters or one
DescribeService       one service with its tasks and events; its long history on demand
DescribeDeployments   what a service's deployments did, and where their time went
"""

from collections.abc import Iterable
from typing import Final, Literal

from controlplane.api import pagination
from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.errors import InvalidParameterException
from controlplane.api.homeport_lookup import find_service_anywhere
from controlplane.api.homeport_service import MAX_PAGE, SERVICE, Paged, Request, parse
from controlplane.api.homeport_service_views import deployment_view, event_view, service_view, tasks_view
from controlplane.api.homeport_views import story_line_view, task_view
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.state.service_records import DeploymentRecord
from homeport.ids import TaskId
from homeport.status import TaskStatus

__all__: list[str] = []

#: Deployments shown without being asked for more, and at most.
_DEFAULT_DEPLOYMENTS: Final = 5
_MAX_DEPLOYMENTS: Final = 100


class _FindServices(Paged, frozen=True):
    cluster: str | None = None
    #: Also deleted ones (a day long).
    inactive: bool = False


class _DescribeService(Request, frozen=True):
    #: Its name, `CLUSTER/NAME`, or its ARN.
    service: str
    cluster: str | None = None
    #: The last 100 events, or all that is kept of its history.
    events: Literal["last", "all"] = "last"


class _DescribeDeployments(Request, frozen=True):
    service: str
    cluster: str | None = None
    #: Only this one: `ecs-svc/DIGITS`.
    deployment: str | None = None
    max_results: int = _DEFAULT_DEPLOYMENTS


@operation(SERVICE, "FindServices")
def find_services(context: Context, document: Document) -> Document:
    """Answer with services, by cluster and name."""
    request = parse(document, _FindServices)
    table, after = context.state.services, pagination.after(document)
    if request.cluster is None:
        found = table.page(None, None, after=after)
    else:
        found = table.page("cluster", find_cluster(context, request.cluster).name, after=after)
    wanted = (service for service in found if request.inactive or service.status != "INACTIVE")
    page = pagination.take(wanted, document, key=lambda service: service.key, maximum=MAX_PAGE)
    return {"services": [service_view(context, service) for service in page.items], **page.more}


@operation(SERVICE, "DescribeService")
async def describe_service(context: Context, document: Document) -> Document:
    """Answer with a service, its tasks that aren't over (the latest MAX_PAGE), and its events, oldest first."""
    request = parse(document, _DescribeService)
    service = find_service_anywhere(context, request.service, request.cluster)
    tasks = [
        task
        for task in context.state.tasks.where("service", (service.cluster, service.group))
        if task.status is not TaskStatus.STOPPED
    ]
    latest = sorted(tasks, key=lambda task: (task.created_at, task.id))[-MAX_PAGE:]
    answer = {
        "service": service_view(context, service),
        "tasks": [task_view(context, task) for task in latest],
        "events": [event_view(event) for event in context.state.events.where("service", service.id)],
    }
    if request.events == "all":
        # What is said at this moment may not be durable yet, and the journal reads only what is.
        await context.state.durable()
        lines = await context.state.journal.story(TaskId(service.id))
        answer["lines"] = [story_line_view(line) for line in lines]
    return answer


@operation(SERVICE, "DescribeDeployments")
def describe_deployments(context: Context, document: Document) -> Document:
    """Answer with a service and its latest deployments, the newest first, rollbacks among them, each with its tasks."""
    request = parse(document, _DescribeDeployments)
    if not 1 <= request.max_results <= _MAX_DEPLOYMENTS:
        raise InvalidParameterException(
            f"maxResults must be between 1 and {_MAX_DEPLOYMENTS}, but was {request.max_results}."
        )
    service = find_service_anywhere(context, request.service, request.cluster)
    deployments: Iterable[DeploymentRecord] = context.state.deployments.where("service", service.id)
    if request.deployment is not None:
        deployments = [each for each in deployments if each.id == request.deployment]
        if not deployments:
            raise InvalidParameterException(f"The service {service.name} has no deployment {request.deployment:.100}.")
    newest = sorted(deployments, key=lambda each: (each.created_at, each.id), reverse=True)[: request.max_results]
    return {
        "service": service_view(context, service),
        "deployments": [
            {**deployment_view(context, service, each), "tasks": tasks_view(context, service, each)} for each in newest
        ],
        "events": [event_view(event) for event in context.state.events.where("service", service.id)],
    }
